// Wrong: gives the stream a deadline, ten years away, where the caller has none.
//
// Fails: TestFirstMatchWaitsForMonths
// Says: firstMatch called Watch with one 87600h0m0s away, want none
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
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*365*24*time.Hour)
		defer cancel()
	}
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
