// Wrong: waits for each ack before it sends the next event.
//
// Fails: TestAThousandEventsTakeTwoSeconds
// Says: took 1m40.237s at a round trip of 100ms, want at most 2s
package main

import (
	"context"
	"errors"
	"fmt"
	"io"

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
		ack, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return acked, errors.New("the server ended the stream early")
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetId())
	}
	stream.CloseSend()
	for {
		ack, err := stream.Recv()
		if errors.Is(err, io.EOF) && len(acked) < len(events) {
			return acked, fmt.Errorf("the server ended the stream after %d of %d acks", len(acked), len(events))
		}
		if errors.Is(err, io.EOF) {
			return acked, nil
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetId())
	}
}
