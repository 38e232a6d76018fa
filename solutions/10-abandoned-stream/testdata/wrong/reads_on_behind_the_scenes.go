// Wrong: leaves the rest of the stream to a goroutine that reads it to the end.
//
// Fails: TestNothingIsLeftOfAMatch
// Says: 1 of 1 RPCs never ended (Watch, opened at answer.go:
// Says: a goroutine that was started at answer.go:
// Says: blocked in Recv at answer.go:
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
			go drain(stream)
			return nil, err
		}
		if ok {
			go drain(stream)
			return ev, nil
		}
	}
}

// drain reads what is left.
func drain(stream grpc.ServerStreamingClient[feedv1.Event]) {
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
	}
}
