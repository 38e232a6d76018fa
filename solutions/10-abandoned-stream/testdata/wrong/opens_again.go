// Wrong: opens the stream again when it fails.
//
// Fails: TestFirstMatchReturnsTheStatusOfTheServer
// Says: firstMatch has not returned after
// Says: times, want once
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// firstMatch returns the first event of the topic that matches. If match fails
// it returns that error, and errNoMatch if the topic ends before a match.
func firstMatch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	match func(*feedv1.Event) (bool, error)) (*feedv1.Event, error) {
	for {
		ev, err := tryFirstMatch(ctx, client, topic, match)
		if status.Code(err) != codes.Unavailable && status.Code(err) != codes.NotFound {
			return ev, err
		}
		time.Sleep(time.Second)
	}
}

func tryFirstMatch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
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
		ok, err := match(ev)
		if err != nil {
			return nil, err
		}
		if ok {
			return ev, nil
		}
	}
}
