// Wrong: returns the error of the third stream and leaves the two that are open.
//
// Fails: TestAStreamThatCannotBeOpenedEndsTheOthers
// Says: and a second later, with the connection open: 2 of 2 RPCs never ended
package main

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	streams := make([]grpc.ServerStreamingClient[feedv1.Event], len(topics))
	for i, topic := range topics {
		var err error
		if streams[i], err = client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}); err != nil {
			return err
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	var (
		turn   sync.Mutex
		failed error
	)
	for i, topic := range topics {
		group.Go(func() error {
			for {
				ev, err := streams[i].Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				turn.Lock()
				if failed == nil {
					failed = ctx.Err()
				}
				if failed == nil {
					failed = handle(topic, ev)
				}
				err = failed
				turn.Unlock()
				if err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}
