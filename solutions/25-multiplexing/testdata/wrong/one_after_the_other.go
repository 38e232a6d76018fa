// Wrong: watches a topic when the one before it has ended.
//
// Fails: TestWatchAllOpensAllStreamsAtOnce
// Says: after 1s 1 stream open, want all at once
package main

import (
	"context"
	"errors"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func watch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(topic string, ev *feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return err
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := handle(topic, ev); err != nil {
			return err
		}
	}
}

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	for _, topic := range topics {
		if err := watch(ctx, client, topic, handle); err != nil {
			return err
		}
	}
	return nil
}
