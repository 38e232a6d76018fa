// Wrong: collects ten events before it looks at them.
//
// Fails: TestFirstMatchReturnsTheFirstEventThatMatches
// Says: firstMatch has not returned after
// Says: blocked in Recv at answer.go:
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
		var events []*feedv1.Event
		var end error
		for len(events) < 10 && end == nil {
			ev, err := stream.Recv()
			if end = err; err == nil {
				events = append(events, ev)
			}
		}
		for _, ev := range events {
			ok, err := match(ev)
			if err != nil {
				return nil, err
			}
			if ok {
				return ev, nil
			}
		}
		if errors.Is(end, io.EOF) {
			return nil, errNoMatch
		}
		if end != nil {
			return nil, end
		}
	}
}
