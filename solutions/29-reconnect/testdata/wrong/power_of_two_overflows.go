// Wrong: the power of two overflows, and the draw panics.
//
// Fails: TestEachWaitIsTwiceTheOneBefore
// Says: follow did not return from wait 35 after 35 attempts
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
	n := 0
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
			n = 0
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch status.Code(err) {
		case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
			return err
		}
		if err := wait(ctx, min(first<<n, longest)); err != nil {
			return err
		}
		n++
	}
}

// wait waits for half of d at least and for d at most, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d/2 + rand.N(d/2+1))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
