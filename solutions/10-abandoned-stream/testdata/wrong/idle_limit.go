// Wrong: gives up a topic that is silent for five days.
//
// Fails: TestFirstMatchWaitsForMonths
// Says: 30 days of silence before each
// Says: firstMatch returned code Canceled
package main

import (
	"context"
	"errors"
	"io"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// firstMatch returns the first event of the topic that matches. If match fails
// it returns that error, and errNoMatch if the topic ends before a match.
func firstMatch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	match func(*feedv1.Event) (bool, error)) (*feedv1.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(5*24*time.Hour, cancel)
	defer idle.Stop()
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
		idle.Reset(5 * 24 * time.Hour)
		ok, err := match(ev)
		if err != nil {
			return nil, err
		}
		if ok {
			return ev, nil
		}
	}
}
