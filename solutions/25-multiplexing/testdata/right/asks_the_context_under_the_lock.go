// Right: cancels under the lock, and who gets it next asks the context.
package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

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
		mu    sync.Mutex
		first error
		ended = make(chan struct{})
		open  atomic.Int32
	)
	end := func(err error) { // the caller holds mu
		if first == nil {
			first = err
		}
		cancel()
	}
	open.Store(int32(len(topics)))
	for _, topic := range topics {
		go func() {
			defer func() {
				if open.Add(-1) == 0 {
					close(ended)
				}
			}()
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			for err == nil {
				var ev *feedv1.Event
				if ev, err = stream.Recv(); errors.Is(err, io.EOF) {
					return
				}
				mu.Lock()
				if err == nil {
					if err = ctx.Err(); err == nil {
						err = handle(topic, ev)
					}
				}
				if err != nil {
					end(err)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
			mu.Lock()
			end(err)
			mu.Unlock()
		}()
	}
	if len(topics) > 0 {
		<-ended
	}
	return first
}
