// Wrong: makes a context with a timeout for each Recv, which Recv has no parameter for.
//
// Fails: TestWatchIdleEndsASilentTopic
// Says: watchIdle has not returned after
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		bound, release := context.WithTimeout(stream.Context(), idle)
		var ev *feedv1.Event
		ev, err = stream.Recv()
		if bound.Err() == context.DeadlineExceeded && ctx.Err() == nil {
			err = ErrIdle
		}
		release()
		if err == nil {
			handle(ev)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
