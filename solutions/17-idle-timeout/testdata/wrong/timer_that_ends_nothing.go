// Wrong: its timer notes the silence, and nothing ends the Recv.
//
// Fails: TestWatchIdleEndsASilentTopic
// Says: watchIdle has not returned after
// Says: blocked in Recv at answer.go:
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
	var silent atomic.Bool
	timer := time.AfterFunc(idle, func() { silent.Store(true) })
	defer timer.Stop()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		if silent.Load() {
			return ErrIdle
		}
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
	return err
}
