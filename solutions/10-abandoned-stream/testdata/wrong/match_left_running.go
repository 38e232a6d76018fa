// Wrong: returns when the caller ends, and leaves match to a goroutine that nobody hears.
//
// Fails: TestFirstMatchWaitsForMatchWhenTheCallerEnds
// Says: while match ran for event 1, want it to wait for match
package main

import (
	"context"
	"errors"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// firstMatch returns the first event of the topic that matches. If match fails
// it returns that error, and errNoMatch if the topic ends before a match.
func firstMatch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	match func(*feedv1.Event) (bool, error)) (*feedv1.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, errNoMatch
		}
		if err != nil {
			return nil, err
		}
		type res struct {
			ok  bool
			err error
		}
		c := make(chan res)
		go func() { ok, err := match(ev); c <- res{ok, err} }()
		select {
		case r := <-c:
			if r.err != nil {
				return nil, r.err
			}
			if r.ok {
				return ev, nil
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
