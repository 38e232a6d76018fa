// Wrong: gives up on a handle that takes longer than the limit.
//
// Fails: TestASlowHandleIsNotSilence
// Says: watchIdle returned ErrIdle while handle ran, want it to wait for handle
package main

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
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
	var heard atomic.Int32
	done := make(chan error, 1)
	go func() {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				heard.Add(1)
				handle(ev)
			}
		}
		done <- err
	}()
	for {
		before := heard.Load()
		select {
		case err := <-done:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-time.After(idle):
			if heard.Load() == before {
				return ErrIdle
			}
		}
	}
}
