// Wrong: asks match about all events that have come and returns the last that matched.
//
// Fails: TestFirstMatchReturnsTheFirstEventThatMatches
// Says: match said true for event 3 and was then called for event 4
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
	var found *feedv1.Event
	for range 1000 {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		ok, err := match(ev)
		if err != nil {
			return nil, err
		}
		if ok {
			found = ev
		}
		if found != nil && ev != found {
			return found, nil
		}
	}
	if found == nil {
		return nil, errNoMatch
	}
	return found, nil
}
