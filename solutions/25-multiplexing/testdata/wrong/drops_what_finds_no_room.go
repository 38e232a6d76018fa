// Wrong: drops an event when handle is busy.
//
// Fails: TestHandleIsCalledForOneEventAtATime
// Says: handle was called for
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
	events := make(chan event, 1)
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
				select {
				case events <- event{topic, ev}:
				default:
				}
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
