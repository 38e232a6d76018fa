// Wrong: opens all streams before it reads from the first: one that waits for its place holds up the others.
//
// Fails: TestATopicThatWaitsForItsStreamHoldsUpNoOther
// Says: an event was handled
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	streams := make([]grpc.ServerStreamingClient[feedv1.Event], len(topics))
	for i, topic := range topics {
		var err error
		if streams[i], err = client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}); err != nil {
			return err
		}
	}
	group, groupCtx := errgroup.WithContext(ctx)
	context.AfterFunc(groupCtx, cancel)
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
