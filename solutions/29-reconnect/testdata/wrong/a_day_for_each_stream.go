// Wrong: ends each stream after a day.
//
// Fails: TestASilentStreamIsLeftAlone
// Says: follow ended stream 1 after 23h59m59.999s of silence, want it left alone
package main

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// follow hands the events of a topic to handle, over the end of each stream,
// until handle fails, the server's answer is final, or ctx ends.
func follow(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := first
	for {
		one, stop := context.WithTimeout(ctx, 24*time.Hour)
		stream, err := client.Watch(one, &feedv1.WatchRequest{Topic: topic})
		for err == nil && ctx.Err() == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				if err := handle(ev); err != nil {
					stop()
					return err
				}
				next = first
			}
		}
		stop()
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
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
