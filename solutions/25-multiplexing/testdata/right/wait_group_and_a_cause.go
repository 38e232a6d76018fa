// Right: a WaitGroup, and the first error as the cause of the cancel.
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
	type first struct{ error }
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	turn := make(chan struct{}, 1)
	var streams sync.WaitGroup
	for _, topic := range topics {
		streams.Go(func() {
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			for err == nil {
				var ev *feedv1.Event
				if ev, err = stream.Recv(); err != nil {
					if errors.Is(err, io.EOF) {
						return
					}
					break
				}
				turn <- struct{}{}
				if err = context.Cause(ctx); err == nil {
					if err = handle(topic, ev); err != nil {
						cancel(first{err})
					}
				}
				<-turn
			}
			cancel(first{err})
		})
	}
	streams.Wait()
	if err, ok := context.Cause(ctx).(first); ok {
		return err.error
	}
	return ctx.Err()
}
