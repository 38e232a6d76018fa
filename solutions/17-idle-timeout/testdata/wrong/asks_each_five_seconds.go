// Wrong: looks at the clock each five seconds.
//
// Fails: TestWatchIdleEndsASilentTopic
// Says: want 30s, or a second more
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
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
	var since atomic.Int64 // when the wait began; 0 while handle runs
	since.Store(time.Now().UnixNano())
	go func() {
		ticker := time.NewTicker(5 * time.Second)
		defer ticker.Stop()
		for {
			select {
			case now := <-ticker.C:
				if at := since.Load(); at != 0 && now.UnixNano()-at >= int64(idle) {
					cancel(silence)
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			since.Store(0)
			handle(ev)
			since.Store(time.Now().UnixNano())
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
