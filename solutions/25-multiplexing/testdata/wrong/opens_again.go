// Wrong: opens a stream again when it has failed.
//
// Fails: TestTheFirstFailureEndsTheOthersAndIsReturned
// Says: Watch was called again for topic "b", want one call for each topic
package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

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
				if err != nil && ctx.Err() == nil {
					time.Sleep(time.Second)
					if stream, err = client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}); err == nil {
						continue
					}
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
