// Wrong: gives up after a hundred streams.
//
// Fails: TestTheRestGoesOnAnotherStream
// Says: 200 events, 1 a stream: upload returned the error rpc error: code = ResourceExhausted desc = too many streams: the server had said OK, and has stored 100 of 200 events
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
	for range 100 {
		n, err := uploadSome(ctx, client, events[stored:])
		stored += n
		if err != nil || stored == len(events) {
			return stored, err
		}
		if n == 0 {
			return stored, status.Error(codes.ResourceExhausted, "the server takes no more events")
		}
	}
	return stored, status.Error(codes.ResourceExhausted, "too many streams")
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
