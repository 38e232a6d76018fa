// Right: cancels with a cause and reads through RecvMsg.
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
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errors.New("firstMatch is done"))
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	for {
		ev := new(feedv1.Event)
		if err := stream.RecvMsg(ev); errors.Is(err, io.EOF) {
			return nil, errNoMatch
		} else if err != nil {
			return nil, err
		}
		if ok, err := match(ev); err != nil {
			return nil, err
		} else if ok {
			return ev, nil
		}
	}
}
