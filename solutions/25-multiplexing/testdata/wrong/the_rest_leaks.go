// Wrong: returns the first error and leaves the other streams open.
//
// Fails: TestTheFirstFailureEndsTheOthersAndIsReturned
// Says: and a part of it is still at work
// Says: blocked in Recv at answer.go:
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
	var turn sync.Mutex
	errs := make(chan error, len(topics))
	for _, topic := range topics {
		go func() {
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			for err == nil {
				var ev *feedv1.Event
				if ev, err = stream.Recv(); errors.Is(err, io.EOF) {
					err = nil
					break
				}
				if err == nil {
					turn.Lock()
					err = handle(topic, ev)
					turn.Unlock()
				}
			}
			errs <- err
		}()
	}
	for range topics {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}
