// Right: the streams hand their events to one loop, in the caller's goroutine.
package main

import (
	"cmp"
	"context"
	"errors"
	"io"

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
	for _, topic := range topics {
		group.Go(func() error {
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
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	// A group of its own would end with its context; this one ends with an error
	// of handle, too: it is the first then, because the loop says it first.
	ended := make(chan error, 1)
	go func() { ended <- group.Wait() }()
	stop := make(chan error, 1)
	var failed error
	for {
		select {
		case e := <-events:
			if failed != nil {
				continue
			}
			if failed = handle(e.topic, e.ev); failed != nil {
				stop <- failed
				group.Go(func() error { return <-stop })
			}
		case err := <-ended:
			return cmp.Or(failed, err)
		}
	}
}
