// Right: returns the error of its context when that has ended, and paces its events.
package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

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
	sender.Go(func() {
		for _, ev := range events {
			if stream.Send(ev) != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
		stream.CloseSend()
	})
	for {
		ack, err := stream.Recv()
		if ctx.Err() != nil && err != nil {
			return acked, ctx.Err()
		}
		if errors.Is(err, io.EOF) && len(acked) < len(events) {
			return acked, errors.New("acks are missing")
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
