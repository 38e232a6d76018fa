// Right: the streams hand their events to one loop, in the caller's goroutine.
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
	type event struct {
		topic string
		ev    *feedv1.Event
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		once    sync.Once
		first   error
		streams sync.WaitGroup
	)
	end := func(err error) { once.Do(func() { first = err; cancel() }) }
	events := make(chan event)
	for _, topic := range topics {
		streams.Go(func() {
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			for err == nil {
				var ev *feedv1.Event
				if ev, err = stream.Recv(); errors.Is(err, io.EOF) {
					return
				}
				if err == nil {
					select {
					case events <- event{topic, ev}:
					case <-ctx.Done():
						err = ctx.Err()
					}
				}
			}
			end(err)
		})
	}
	go func() {
		streams.Wait()
		close(events)
	}()
	failed := false
	for e := range events {
		if failed {
			continue
		}
		if err := handle(e.topic, e.ev); err != nil {
			failed = true
			end(err)
		}
	}
	return first
}
