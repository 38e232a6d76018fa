// Right: a sync.Cond for the turn, which the end of the context wakes.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

var (
	_ = errors.Is
	_ = fmt.Errorf
	_ = io.EOF
	_ = time.Second
	_ = codes.OK
	_ = status.Code
	_ = slices.Max[[]int]
)

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var once sync.Once
	var first error
	fail := func(err error) { once.Do(func() { first = err; cancel() }) }
	var mu sync.Mutex
	cond := sync.NewCond(&mu)
	busy := false
	stop := context.AfterFunc(ctx, func() { mu.Lock(); cond.Broadcast(); mu.Unlock() })
	defer stop()
	var wg sync.WaitGroup
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
				for busy && ctx.Err() == nil {
					cond.Wait()
				}
				if ctx.Err() != nil {
					mu.Unlock()
					fail(ctx.Err())
					return
				}
				busy = true
				mu.Unlock()
				err = handle(topic, ev)
				if err != nil {
					if ctx.Err() != nil {
						fail(ctx.Err())
					}
					fail(err)
				}
				mu.Lock()
				busy = false
				cond.Broadcast()
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}
