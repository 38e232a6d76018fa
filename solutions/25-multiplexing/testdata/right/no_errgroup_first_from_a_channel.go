// Right: the first error that comes through a channel, and all ends are awaited.
package main

import (
	"context"
	"errors"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		turn   sync.Mutex
		failed error
	)
	errs := make(chan error, len(topics))
	for _, topic := range topics {
		go func() {
			errs <- func() error {
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
					turn.Lock()
					if failed == nil {
						failed = ctx.Err()
					}
					if failed == nil {
						failed = handle(topic, ev)
					}
					err = failed
					turn.Unlock()
					if err != nil {
						return err
					}
				}
			}()
		}()
	}
	var result error
	for range topics {
		if err := <-errs; err != nil && result == nil {
			result = err
			cancel()
		}
	}
	return result
}
