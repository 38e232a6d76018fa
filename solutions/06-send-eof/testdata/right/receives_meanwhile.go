// Right: waits for the receipt on another goroutine while it sends, and so knows of the end before Send does.
package main

import (
	"context"

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
		if err != nil || stored == len(events) {
			return stored, err
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
	var receipt feedv1.UploadResult
	ended := make(chan error, 1)
	go func() { ended <- stream.RecvMsg(&receipt) }()
	for _, ev := range events {
		if stream.Send(ev) != nil {
			break
		}
		select {
		case err := <-ended:
			return count(&receipt, err)
		default:
		}
	}
	stream.CloseSend()
	return count(&receipt, <-ended)
}

// count is 0 beside an error, also where there was a receipt before it.
func count(receipt *feedv1.UploadResult, err error) (int, error) {
	if err != nil {
		return 0, err
	}
	return int(receipt.GetReceived()), nil
}
