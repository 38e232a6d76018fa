// Wrong: leaves out an event that Send refuses and uploads the others.
//
// Fails: TestAnEventThatCannotBeSentFailsTheUpload
// Says: the third of 3 events is not UTF-8: upload returned 2 and no error, want code Internal
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// upload sends events until the server has stored all of them, on as many
// streams, one after the other, as the server wants. stored counts what the
// server's receipts say. The error says how the upload failed.
func upload(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (stored int, err error) {
	rest := events
	for {
		n, bad, err := uploadSome(ctx, client, rest)
		if bad >= 0 {
			rest = append(rest[:bad:bad], rest[bad+1:]...)
			continue
		}
		stored += n
		rest = rest[n:]
		if err != nil || len(rest) == 0 {
			return stored, err
		}
		if n == 0 {
			return stored, status.Error(codes.ResourceExhausted, "the server takes no more events")
		}
	}
}

// uploadSome sends events on one stream and returns how many of them the server
// has stored, or which one cannot be sent; bad is -1 if there is none.
func uploadSome(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (n, bad int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, -1, err
	}
	for i, ev := range events {
		err := stream.Send(ev)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, i, nil
		}
	}
	receipt, err := stream.CloseAndRecv()
	return int(receipt.GetReceived()), -1, err
}
