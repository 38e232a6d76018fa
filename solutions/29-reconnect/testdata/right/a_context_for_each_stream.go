// Right: each stream has a context, and a function, of its own.
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
	next := first
	for {
		some, failed, err := one(ctx, client, topic, handle)
		if failed != nil {
			return failed
		}
		if some {
			next = first
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

// one follows one stream to its end. failed is what handle returned.
func one(ctx context.Context, client feedv1.FeedServiceClient, topic string, handle func(*feedv1.Event) error) (some bool, failed, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return false, nil, err
	}
	for ctx.Err() == nil {
		ev, err := stream.Recv()
		if err != nil {
			return some, nil, err
		}
		if err := handle(ev); err != nil {
			return some, err, nil
		}
		some = true
	}
	return some, nil, ctx.Err()
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
