// Wrong: bounds the whole stream, and calls its end silence.
//
// Fails: TestEachEventBeginsTheSilenceAnew
// Says: 5 events came 29s apart, and the topic ended with OK: watchIdle returned ErrIdle after 1 event, want no error
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
	ctx, cancel := context.WithTimeoutCause(ctx, idle, ErrIdle)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			handle(ev)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if context.Cause(ctx) == ErrIdle {
		return ErrIdle
	}
	return err
}
