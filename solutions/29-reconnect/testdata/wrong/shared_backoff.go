// Wrong: all calls share one wait.
//
// Fails: TestEachWaitIsTwiceTheOneBefore
// Says: attempt 1 ended without an event, and follow waited
package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

var (
	next = first
	mu   sync.Mutex
)

// follow hands the events of a topic to handle, over the end of each stream,
// until handle fails, the server's answer is final, or ctx ends.
func follow(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	mu.Lock()
	defer mu.Unlock()
	for {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil && ctx.Err() == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				if err := handle(ev); err != nil {
					return err
				}
				next = first
			}
		}
		switch status.Code(err) {
		case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
			return err
		}
		if err := wait(ctx, next); err != nil {
			return err
		}
		next = min(2*next, longest)
	}
}

// wait waits for half of d at least and for d at most, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	// From the upper quarter: a wait of 2 s is never one of 1 s by chance.
	timer := time.NewTimer(d - rand.N(d/4))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
