// Wrong: opens all, and asks one after the other for its next event: a silent one holds up all.
//
// Fails: TestWatchAllHandsOverTheEventsOfAllTopics
// Says: an event was handled
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streams := make([]grpc.ServerStreamingClient[feedv1.Event], len(topics))
	for i, topic := range topics {
		var err error
		if streams[i], err = client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}); err != nil {
			return err
		}
	}
	for open := len(streams); open > 0; {
		for i, stream := range streams {
			if stream == nil {
				continue
			}
			ev, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				streams[i] = nil
				open--
				continue
			}
			if err != nil {
				return err
			}
			if err := handle(topics[i], ev); err != nil {
				return err
			}
		}
	}
	return nil
}
