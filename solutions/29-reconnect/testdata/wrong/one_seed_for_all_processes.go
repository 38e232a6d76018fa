// Wrong: all clients of a process share a generator, and each process begins with the same seed.
//
// Fails: TestNoTwoProcessesAreInStep
// Says: two processes that ran follow waited
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
		next = min(2*next, longest)
	}
}

var rmu sync.Mutex
var rng = rand.New(rand.NewPCG(1, 2))

// wait waits for half of d at least and for d at most, or until ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	rmu.Lock()
	j := time.Duration(rng.Int64N(int64(d/2) + 1))
	rmu.Unlock()
	timer := time.NewTimer(d/2 + j)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
