// Wrong: takes an error of match for no match.
//
// Fails: TestFirstMatchReturnsTheErrorOfMatch
// Says: match failed for event 2 and was then called for event 3
// Says: want no further call
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
		if ok, _ := match(ev); ok {
			return ev, nil
		}
	}
}
