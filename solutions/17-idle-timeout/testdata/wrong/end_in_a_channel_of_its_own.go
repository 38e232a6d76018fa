// Wrong: has the end in a channel of its own, where it may overtake the events: select throws dice.
//
// Fails: TestAnEndWhileHandleRunsIsNoSilence
// Says: and while it ran for event 1, the topic ended with code OK: watchIdle returned no error, and handle was called for
// Says: of 20 events
package main

import (
	"context"
	"errors"
	"io"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchIdle hands the events of a topic to handle, one after the other, until
// the topic ends, or until it has waited for an event for as long as idle says:
// then it returns ErrIdle.
func watchIdle(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	idle time.Duration, handle func(*feedv1.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, errc := make(chan *feedv1.Event, 64), make(chan error, 1)
	go func() {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				select {
				case events <- ev:
				case <-ctx.Done():
					err = ctx.Err()
				}
			}
		}
		errc <- err
	}()
	for {
		select {
		case ev := <-events:
			handle(ev)
		case err := <-errc: // may be drawn before events that are queued
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-time.After(idle):
			return ErrIdle
		}
	}
}
