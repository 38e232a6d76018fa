// Right: wraps every error with %w and returns the event beside the error of match.
package main

import (
	"context"
	"errors"
	"fmt"
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
		return nil, fmt.Errorf("open %s: %w", topic, err)
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("search %s: %w", topic, errNoMatch)
		}
		if err != nil {
			return nil, fmt.Errorf("receive from %s: %w", topic, err)
		}
		ok, err := match(ev)
		if err != nil {
			return ev, fmt.Errorf("match event %s: %w", ev.GetId(), err)
		}
		if ok {
			return ev, nil
		}
	}
}
