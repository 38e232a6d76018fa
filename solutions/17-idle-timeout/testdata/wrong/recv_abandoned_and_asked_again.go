// Wrong: gives a silent topic a second chance by a second Recv, while the first still waits.
//
// Fails: TestWatchIdleEndsASilentTopic
// Says: watchIdle returned ErrIdle 1m0s after the last event, want 30s, or a second more
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
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	type received struct {
		ev  *feedv1.Event
		err error
	}
	for silent := 0; err == nil; {
		next := make(chan received, 1)
		go func() {
			ev, err := stream.Recv()
			next <- received{ev, err}
		}()
		select {
		case r := <-next:
			silent = 0
			if err = r.err; err == nil {
				handle(r.ev)
			}
		case <-time.After(idle):
			if silent++; silent == 2 {
				return ErrIdle
			}
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
