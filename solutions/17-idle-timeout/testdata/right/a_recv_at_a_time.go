// Right: a goroutine for each Recv, and a cancel when the clock was faster.
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
	var stream feedv1.FeedService_WatchClient
	for {
		next := make(chan received, 1)
		go func() {
			var r received
			if stream == nil {
				stream, r.err = client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			}
			if r.err == nil {
				r.ev, r.err = stream.Recv()
			}
			next <- r
		}()
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
			cancel()
			<-next
			return ErrIdle
		}
	}
}
