// Right: searches in a goroutine that it waits for. Its helper has a name that anybody takes.
package main

import (
	"context"
	"errors"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func search(ctx context.Context, client feedv1.FeedServiceClient, topic string,
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

// firstMatch returns the first event of the topic that matches. If match fails
// it returns that error, and errNoMatch if the topic ends before a match.
func firstMatch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	match func(*feedv1.Event) (bool, error)) (*feedv1.Event, error) {
	type result struct {
		ev  *feedv1.Event
		err error
	}
	c := make(chan result, 1)
	go func() {
		ev, err := search(ctx, client, topic, match)
		c <- result{ev, err}
	}()
	r := <-c
	return r.ev, r.err
}
