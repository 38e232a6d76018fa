// Wrong: looks at the receipt only after an EOF: when every Send returned nil it takes all for stored.
//
// Fails: TestTheRestGoesOnAnotherStream
// Says: 400 large events, 100 a stream: upload returned 400 and no error, and the server has stored 300 of 400 events: its receipts say no more
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// upload sends events until the server has stored all of them, on as many
// streams, one after the other, as the server wants. stored counts what the
// server's receipts say. The error says how the upload failed.
func upload(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (stored int, err error) {
	for {
		n, whole, err := uploadSome(ctx, client, events[stored:])
		if whole && err == nil {
			return len(events), nil
		}
		stored += n
		if err != nil {
			return stored, err
		}
		if n == 0 {
			return stored, status.Error(codes.ResourceExhausted, "the server takes no more events")
		}
	}
}

// uploadSome sends events on one stream. It returns how many of them the server
// has stored, and whether Send took all of them.
func uploadSome(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (n int, whole bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, false, err
	}
	whole = true
	for _, ev := range events {
		err := stream.Send(ev)
		if errors.Is(err, io.EOF) {
			whole = false
			break
		}
		if err != nil {
			return 0, false, err
		}
		time.Sleep(time.Nanosecond) // gRPC sends it first
	}
	receipt, err := stream.CloseAndRecv()
	return int(receipt.GetReceived()), whole, err
}
