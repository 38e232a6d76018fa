// Wrong: sends ten events and waits for their acks, then the next ten.
//
// Fails: TestAThousandEventsTakeTwoSeconds
// Says: at a round trip of 100ms, want at most 2s: an event need not wait for the ack of another
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

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
	for batch := range slices.Chunk(events, 10) {
		for _, ev := range batch {
			if err := stream.Send(ev); err != nil {
				break
			}
		}
		for range batch {
			ack, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return acked, errors.New("the server ended the stream early")
			}
			if err != nil {
				return acked, err
			}
			acked = append(acked, ack.GetId())
		}
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
