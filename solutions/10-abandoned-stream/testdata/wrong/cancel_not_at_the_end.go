// Wrong: cancels when match has spoken, and not when the topic ends: gRPC has released the stream by then, and nobody the context.
//
// Fails: TestNothingIsLeftWhenNothingMatched
// Says: the topic ended without a match
// Says: the context made at answer.go:
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
		ok, err := match(ev)
		if err != nil || ok {
			cancel()
		}
		if err != nil {
			return nil, err
		}
		if ok {
			return ev, nil
		}
	}
}
