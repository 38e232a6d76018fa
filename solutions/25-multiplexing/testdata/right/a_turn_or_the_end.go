// Right: waits for its turn or for the end.
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
	turn := make(chan struct{}, 1)
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
				select {
				case turn <- struct{}{}:
				case <-ctx.Done():
					fail(ctx.Err())
					return
				}
				if ctx.Err() != nil {
					fail(ctx.Err())
					<-turn
					return
				}
				err = handle(topic, ev)
				if err != nil {
					if ctx.Err() != nil {
						fail(ctx.Err())
					}
					fail(err)
				}
				<-turn
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return first
}
