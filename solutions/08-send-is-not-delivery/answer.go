package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ingest sends all events on one stream, and returns the ids of those whose
// acks arrived, in the order in which they arrived. Without an error these are
// all. With one, the caller sends the others again: they may be stored or not.
func ingest(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (acked []string, err error) {
	var sender sync.WaitGroup
	defer sender.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	// No event waits for the ack of another, or each would cost a round trip.
	sender.Go(func() {
		for _, ev := range events {
			// A nil says that the event is queued. An error says that the
			// stream has ended, and Recv tells how.
			if err := stream.Send(ev); err != nil {
				return
			}
		}
		stream.CloseSend() // the server stores what it still holds
	})
	// Only what the server says counts: an ack, and at the end the status. The
	// acks that came before an error are as good as any.
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
