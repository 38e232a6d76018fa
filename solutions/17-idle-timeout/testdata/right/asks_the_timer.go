// Right: Stop says whether the timer has fired.
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
	timer := time.AfterFunc(idle, cancel)
	defer timer.Stop()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			timer.Stop()
			handle(ev)
			timer.Reset(idle)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if !timer.Stop() {
		return ErrIdle
	}
	return err
}
