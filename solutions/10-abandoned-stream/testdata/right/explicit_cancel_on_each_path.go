// Right: cancels by hand on each way out.
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
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		cancel()
		return nil, err
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			cancel()
			return nil, errNoMatch
		}
		if err != nil {
			cancel()
			return nil, err
		}
		ok, err := match(ev)
		if err != nil {
			cancel()
			return nil, err
		}
		if ok {
			cancel()
			return ev, nil
		}
	}
}
