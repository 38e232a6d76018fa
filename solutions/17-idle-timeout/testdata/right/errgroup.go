// Right: an errgroup of a receiver and a watchdog.
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchIdle hands the events of a topic to handle, one after the other, until
// the topic ends, or until it has waited for an event for as long as idle says:
// then it returns ErrIdle.
func watchIdle(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	idle time.Duration, handle func(*feedv1.Event)) error {
	group, ctx := errgroup.WithContext(ctx)
	waits, over, silent := make(chan struct{}), make(chan struct{}), make(chan struct{})
	tell := func() {
		select {
		case waits <- struct{}{}:
		case <-silent:
		}
	}
	group.Go(func() error { // its ErrIdle cancels ctx, which ends the stream
		defer close(silent)
		for {
			select {
			case <-waits: // an event has come
			case <-time.After(idle):
				return ErrIdle
			case <-over:
				return nil
			}
			select {
			case <-waits: // handle has returned
			case <-over:
				return nil
			}
		}
	})
	group.Go(func() error {
		defer close(over)
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				tell()
				handle(ev)
				tell()
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	})
	return group.Wait()
}
