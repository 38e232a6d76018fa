// Wrong: one lock guards the first error and handle: a failure waits until handle has returned.
//
// Fails: TestTheFirstEndCountsWhileHandleRuns
// Says: 3 other streams left open until handle returns
package main

import (
	"context"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		mu    sync.Mutex // guards first, and handle
		first error
		wg    sync.WaitGroup
	)
	fail := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = err
			cancel()
		}
	}
	for _, topic := range topics {
		wg.Go(func() {
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			if err != nil {
				fail(err)
				return
			}
			for {
				ev, err := stream.Recv()
				if err == io.EOF {
					return
				}
				if err != nil {
					fail(err)
					return
				}
				mu.Lock()
				if first == nil {
					if first = handle(topic, ev); first != nil {
						cancel()
					}
				}
				stop := first != nil
				mu.Unlock()
				if stop {
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}
