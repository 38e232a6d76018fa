// Wrong: its receiver sends into a buffer of one and asks nobody whether it is read: with more events than that it stays behind.
//
// Fails: TestNothingIsLeftWhenTheCallerEndsWhileEventsWait
// Says: 300 events came, and the caller cancelled while handle ran for event 1. watchIdle returned, and a second later
// Says: a goroutine that was started at answer.go:
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
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type result struct {
		ev  *feedv1.Event
		err error
	}
	next := make(chan result, 1) // room for the last word of the reader
	go func() {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				next <- result{ev: ev}
			}
		}
		next <- result{err: err}
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
		case <-parent.Done():
			return parent.Err()
		case <-time.After(idle):
			return ErrIdle
		}
	}
}
