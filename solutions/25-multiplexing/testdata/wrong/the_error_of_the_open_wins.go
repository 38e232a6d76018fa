// Wrong: returns the error of the stream that waited for its place: Canceled, because another had failed.
//
// Fails: TestATopicThatWaitsForItsStreamHoldsUpNoOther
// Says: watchAll returned code Canceled (context canceled), want the error of handle
package main

import (
	"context"
	"errors"
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
		group  sync.WaitGroup
		turn   sync.Mutex
		failed error
		once   sync.Once
		result error
	)
	end := func(err error) {
		once.Do(func() { result = err; cancel() })
	}
	for _, topic := range topics {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		if err != nil {
			cancel()
			group.Wait()
			return err
		}
		group.Go(func() {
			for {
				ev, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return
				}
				if err == nil {
					turn.Lock()
					if failed == nil {
						failed = ctx.Err()
					}
					if failed == nil {
						failed = handle(topic, ev)
					}
					err = failed
					turn.Unlock()
				}
				if err != nil {
					end(err)
					return
				}
			}
		})
	}
	group.Wait()
	return result
}
