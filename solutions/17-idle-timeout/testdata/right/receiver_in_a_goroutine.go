// Right: a goroutine receives, this one waits for it or for the clock, and joins it.
package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchIdle hands the events of a topic to handle, one after the other, until
// the topic ends, or until it has waited for an event for as long as idle says:
// then it returns ErrIdle.
func watchIdle(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	idle time.Duration, handle func(*feedv1.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	type received struct {
		ev  *feedv1.Event
		err error
	}
	next, gone := make(chan received), make(chan struct{})
	var receiver sync.WaitGroup
	defer receiver.Wait()
	defer close(gone)
	defer cancel()
	receiver.Go(func() {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err != nil {
				break
			}
			select {
			case next <- received{ev, nil}:
			case <-gone:
				return
			}
		}
		select {
		case next <- received{nil, err}:
		case <-gone:
		}
	})
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
