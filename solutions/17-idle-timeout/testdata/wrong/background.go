// Wrong: watches without its caller's context.
//
// Fails: TestTheEndOfTheCallerIsNoSilence
// Says: and 10s later the caller cancelled: watchIdle returned ErrIdle after 2 events, want code Canceled
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
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	silence := fmt.Errorf("%w: no event for %v", ErrIdle, idle)
	timer := time.AfterFunc(idle, func() { cancel(silence) })
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
	if status.Code(err) == codes.Canceled && context.Cause(ctx) == silence {
		return silence
	}
	return err
}
