// Wrong: takes the limit for a message for one of the stream, and cuts the events by it.
//
// Fails: TestAllEventsGoOnOneStream
// Says: 5 events of 1 MB: upload opened 2 streams, the last at answer.go:
// Says: want 1
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

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
	size := 0
	for _, ev := range events {
		if size += proto.Size(ev); size > 4<<20 {
			break
		}
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
