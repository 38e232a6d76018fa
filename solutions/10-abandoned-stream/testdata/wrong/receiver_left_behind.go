// Wrong: cancels the stream, and leaves a receiver that waits for somebody to take its event.
//
// Fails: TestNothingIsLeftOfAMatch
// Says: a goroutine that was started at answer.go:
// Says: blocked sending to a channel at answer.go:
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
	type received struct {
		ev  *feedv1.Event
		err error
	}
	next := make(chan received)
	go func() {
		for {
			ev, err := stream.Recv()
			next <- received{ev, err}
			if err != nil {
				return
			}
		}
	}()
	for got := range next {
		if errors.Is(got.err, io.EOF) {
			return nil, errNoMatch
		}
		if got.err != nil {
			return nil, got.err
		}
		ok, err := match(got.ev)
		if err != nil {
			return nil, err
		}
		if ok {
			return got.ev, nil
		}
	}
	return nil, errNoMatch
}
