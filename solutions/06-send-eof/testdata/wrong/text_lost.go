// Wrong: makes a status of its own with the server's code, and why it was rejected is lost.
//
// Fails: TestTheStatusOfARejectionReachesTheCaller
// Says: upload returned the error rpc error: code = PermissionDenied desc = upload failed, which has lost the text of the status
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
	for {
		n, err := uploadSome(ctx, client, events[stored:])
		stored += n
		if err != nil {
			return stored, status.Error(status.Code(err), "upload failed")
		}
		if stored == len(events) {
			return stored, nil
		}
		if n == 0 {
			return stored, status.Error(codes.ResourceExhausted, "the server takes no more events")
		}
	}
}

// uploadSome sends events on one stream and returns how many of them the server
// has stored.
func uploadSome(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, err
	}
	for _, ev := range events {
		err := stream.Send(ev)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	receipt, err := stream.CloseAndRecv()
	if err != nil {
		return 0, err
	}
	return int(receipt.GetReceived()), nil
}
