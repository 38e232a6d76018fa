// Wrong: a watchdog that nobody stops: it stays until its last limit has passed.
//
// Fails: TestNothingIsLeftOfAnyOtherEnd
// Says: the topic ended with code OK. watchIdle returned, and a second later
// Says: a goroutine that was started at answer.go:
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
	event := make(chan struct{})
	go func() {
		for {
			select {
			case <-event: // and then the end of handle
				<-event
			case <-time.After(idle):
				cancel(silence)
				return
			}
		}
	}()
	tell := func() {
		select {
		case event <- struct{}{}:
		case <-ctx.Done():
		}
	}
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			tell()
			handle(ev)
			tell()
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
