// Right: one direction after the other on one goroutine; the acks wait in the window meanwhile.
package main

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ingest sends all events on one stream, and returns the ids of those whose
// acks arrived, in the order in which they arrived. Without an error these are
// all. With one, the caller sends the others again: they may be stored or not.
func ingest(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (acked []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			break
		}
	}
	stream.CloseSend()
	for {
		ack, err := stream.Recv()
		switch {
		case err == io.EOF && len(acked) == len(events):
			return acked, nil
		case err == io.EOF:
			return acked, status.Error(codes.DataLoss, "not every event was acknowledged")
		case err != nil:
			return acked, fmt.Errorf("after %d acks: %w", len(acked), err)
		}
		acked = append(acked, ack.GetId())
	}
}
