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
	// The first error ends the group's context, and so the other streams. They
	// say Canceled then; Wait keeps the first, and returns when all have ended.
	group, ctx := errgroup.WithContext(ctx)
	var (
		turn   sync.Mutex // of the one that calls handle; the others wait, and do not receive
		failed error      // why handle is not called any more
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
					return nil // this topic has ended, the others go on
				}
				if err != nil {
					return err
				}
				turn.Lock()
				if failed == nil {
					failed = ctx.Err() // or all ended while this one waited
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
