package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchIdle hands the events of a topic to handle, one after the other, until
// the topic ends, or until it has waited for an event for as long as idle says:
// then it returns ErrIdle.
func watchIdle(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	idle time.Duration, handle func(*feedv1.Event)) error {
	// To cancel is the only way to end a Recv. The timer runs from here on,
	// because opening the stream may take for ever, too.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := fmt.Errorf("%w: no event for %v", ErrIdle, idle)
	timer := time.AfterFunc(idle, func() { cancel(silence) })
	defer timer.Stop()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			timer.Stop() // while handle runs nobody waits for an event
			handle(ev)
			timer.Reset(idle)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	// Only the first cancel sets the cause. Where it was the caller's, so is the
	// cause, and that may be another call's ErrIdle: hence a value of our own.
	if status.Code(err) == codes.Canceled && context.Cause(ctx) == silence {
		return silence
	}
	return err
}
