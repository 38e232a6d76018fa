// Wrong: opens a stream for each event, because a stream that is read once is easily released.
//
// Fails: TestFirstMatchReturnsTheFirstEventThatMatches
// Says: firstMatch called Watch 3 times, want once
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
	for i := 1; ; i++ {
		ev, err := nth(ctx, client, topic, i)
		if errors.Is(err, io.EOF) {
			return nil, errNoMatch
		}
		if err != nil {
			return nil, err
		}
		ok, err := match(ev)
		if err != nil {
			return nil, err
		}
		if ok {
			return ev, nil
		}
	}
}

// nth returns event number n of the topic.
func nth(ctx context.Context, client feedv1.FeedServiceClient, topic string, n int) (ev *feedv1.Event, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for i := 0; i < n && err == nil; i++ {
		ev, err = stream.Recv()
	}
	return ev, err
}
