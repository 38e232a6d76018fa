// Wrong: waits to hand over an event, and nobody takes it any more after the error of handle.
//
// Fails: TestHandleIsNotCalledAgainAfterItsError
// Says: has not returned after
// Says: blocked sending to a channel at answer.go:
package main

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	type event struct {
		topic string
		ev    *feedv1.Event
	}
	group, ctx := errgroup.WithContext(ctx)
	events := make(chan event)
	var streams sync.WaitGroup
	for _, topic := range topics {
		streams.Add(1)
		group.Go(func() error {
			defer streams.Done()
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			if err != nil {
				return err
			}
			for {
				ev, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				events <- event{topic, ev}
			}
		})
	}
	group.Go(func() error {
		for e := range events {
			if err := handle(e.topic, e.ev); err != nil {
				return err
			}
		}
		return nil
	})
	streams.Wait()
	close(events)
	return group.Wait()
}
