// Wrong: opens the stream in a helper whose deferred cancel runs before the first Recv.
//
// Fails: TestFirstMatchReturnsTheFirstEventThatMatches
// Says: firstMatch returned code Canceled
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// firstMatch returns the first event of the topic that matches. If match fails
// it returns that error, and errNoMatch if the topic ends before a match.
func firstMatch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	match func(*feedv1.Event) (bool, error)) (*feedv1.Event, error) {
	stream, err := watch(ctx, client, topic)
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
		if err != nil {
			return nil, err
		}
		if ok {
			return ev, nil
		}
	}
}

// watch opens the stream.
func watch(ctx context.Context, client feedv1.FeedServiceClient, topic string) (grpc.ServerStreamingClient[feedv1.Event], error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
}
