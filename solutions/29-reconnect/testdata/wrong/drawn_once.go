// Wrong: draws once, for all waits.
//
// Fails: TestNoTwoClientsAreInStep
// Says: want each wait drawn anew
package main

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// No two clients draw the same part: that would be another mistake.
var (
	parts = rand.Perm(1000)
	calls atomic.Int64
)

// follow hands the events of a topic to handle, over the end of each stream,
// until handle fails, the server's answer is final, or ctx ends.
func follow(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next := first
	part := float64(parts[calls.Add(1)%1000]) / 1000
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
		if err := wait(ctx, next, part); err != nil {
			return err
		}
		next = min(2*next, longest)
	}
}

// wait waits for half of d at least and for d at most, or until ctx ends.
func wait(ctx context.Context, d time.Duration, part float64) error {
	timer := time.NewTimer(d/2 + time.Duration(part*float64(d/2)))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
