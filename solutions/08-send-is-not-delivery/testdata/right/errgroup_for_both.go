// Right: two goroutines in an errgroup, of which the sender never fails.
package main

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

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
	var g errgroup.Group
	g.Go(func() error {
		for _, ev := range events {
			if stream.Send(ev) != nil {
				return nil // Recv has the reason
			}
		}
		return stream.CloseSend()
	})
	g.Go(func() error {
		for {
			ack, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			acked = append(acked, ack.GetId())
		}
	})
	err = g.Wait()
	if err == nil && len(acked) < len(events) {
		err = errors.New("acks are missing")
	}
	return acked, err
}
