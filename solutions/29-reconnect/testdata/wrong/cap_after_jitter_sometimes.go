// Wrong: cuts off what it has drawn: one of six waits is the longest.
//
// Fails: TestNoTwoClientsAreInStep
// Says: clients waited 1m0s for the time of number
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
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err != nil {
				break
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := handle(ev); err != nil {
				return err
			}
			next = first
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch status.Code(err) {
		case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
			return err
		}
		if err := wait(ctx, next); err != nil {
			return err
		}
		next = min(2*next, 66*first)
	}
}

// wait waits for half of d at least and for d at most, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(min(d/2+rand.N(d/2+1), longest))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
