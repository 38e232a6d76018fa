// Wrong: a receiver that gives up with the context, and nobody who waits for that: then only the clock is left.
//
// Fails: TestTheEndOfTheCallerIsNoSilence
// Says: watchIdle returned ErrIdle after 2 events, want code Canceled
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
	type received struct {
		ev  *feedv1.Event
		err error
	}
	next := make(chan received)
	go func() {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for {
			r := received{err: err}
			if err == nil {
				r.ev, r.err = stream.Recv()
			}
			if ctx.Err() != nil {
				return
			}
			select {
			case next <- r:
			case <-ctx.Done():
				return
			}
			if r.err != nil {
				return
			}
		}
	}()
	for {
		select {
		case r := <-next:
			if errors.Is(r.err, io.EOF) {
				return nil
			}
			if r.err != nil {
				return r.err
			}
			handle(r.ev)
		case <-time.After(idle):
			return ErrIdle
		}
	}
}
