// Wrong: returns the cause of the caller's cancel, which is somebody else's error.
//
// Fails: TestWatchAllReturnsWhenItsCallerLeaves
// Says: watchAll returned the error "EOF", want code Canceled
package main

import (
	"context"
	"errors"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	group, ctx := errgroup.WithContext(ctx)
	var (
		turn   sync.Mutex
		failed error
	)
	for _, topic := range topics {
		group.Go(func() error {
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
	if err := group.Wait(); err != nil {
		return context.Cause(ctx)
	}
	return nil
}
