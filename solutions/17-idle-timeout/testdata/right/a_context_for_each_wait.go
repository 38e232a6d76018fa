// Right: each wait has a context with a timeout, whose end cancels the stream.
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
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := fmt.Errorf("%w: no event for %v", ErrIdle, idle)
	// wait bounds what follows until done is called.
	wait := func() (done func()) {
		bound, release := context.WithTimeout(context.Background(), idle)
		stop := context.AfterFunc(bound, func() { cancel(silence) })
		return func() { stop(); release() }
	}
	done := wait()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		ev, err = stream.Recv()
		done()
		if err == nil {
			handle(ev)
			done = wait()
		}
	}
	done()
	if errors.Is(err, io.EOF) {
		return nil
	}
	if status.Code(err) == codes.Canceled && context.Cause(ctx) == silence {
		return silence
	}
	return err
}
