// Wrong: joins the errors in the order of the topics: the code is that of the first, Canceled.
//
// Fails: TestTheFirstFailureEndsTheOthersAndIsReturned
// Says: watchAll returned code Canceled
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
	errs := make([]error, len(topics))
	var (
		turn   sync.Mutex
		failed error
	)
	for i, topic := range topics {
		group.Go(func() (result error) {
			defer func() { errs[i] = result }()
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
	group.Wait()
	return errors.Join(errs...)
}
