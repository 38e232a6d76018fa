// Wrong: keeps the error of Recv and that of match in one variable, and takes an io.EOF of match for the end of the topic.
//
// Fails: TestFirstMatchReturnsTheErrorOfMatch
// Says: the error "cannot decode it: EOF"
// Says: want the error of match
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
		var ok bool
		if err == nil {
			ok, err = match(ev)
		}
		if errors.Is(err, io.EOF) {
			return nil, errNoMatch
		}
		if err != nil {
			return nil, err
		}
		if ok {
			return ev, nil
		}
	}
}
