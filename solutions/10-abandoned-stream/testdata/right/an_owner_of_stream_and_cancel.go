// Right: a type owns the stream and its cancel, and whoever opens one closes it.
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// subscription is a stream that can be closed.
type subscription struct {
	grpc.ServerStreamingClient[feedv1.Event]
	cancel context.CancelFunc
}

func open(ctx context.Context, client feedv1.FeedServiceClient, topic string) (*subscription, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		cancel()
		return nil, err
	}
	return &subscription{stream, cancel}, nil
}

func (s *subscription) Close() { s.cancel() }

// firstMatch returns the first event of the topic that matches. If match fails
// it returns that error, and errNoMatch if the topic ends before a match.
func firstMatch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	match func(*feedv1.Event) (bool, error)) (*feedv1.Event, error) {
	stream, err := open(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
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
