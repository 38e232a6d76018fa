// Wrong: races, and takes CloseSend for the end of the stream.
//
// Fails: TestNothingIsLeftOfASilentTopic
// Says: 1 of 1 RPCs never ended (Watch, opened at answer.go:
// Says: blocked in Recv at answer.go:
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
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		done := make(chan struct{})
		go func() {
			defer close(done)
			ev, err = stream.Recv()
		}()
		select {
		case <-done:
		case <-time.After(idle):
			stream.CloseSend()
			return ErrIdle
		}
		if err == nil {
			handle(ev)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
