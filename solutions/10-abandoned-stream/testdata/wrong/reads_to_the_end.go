// Wrong: reads on after the match so that the stream ends well. The topic has no end.
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
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	var found *feedv1.Event
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if found != nil {
				return found, nil
			}
			return nil, errNoMatch
		}
		if err != nil {
			return nil, err
		}
		if found != nil {
			continue
		}
		ok, err := match(ev)
		if err != nil {
			return nil, err
		}
		if ok {
			found = ev
		}
	}
}
