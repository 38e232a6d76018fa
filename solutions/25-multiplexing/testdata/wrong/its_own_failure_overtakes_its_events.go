// Wrong: a queue before handle, and the failure of a topic overtakes the events that it sent before.
//
// Fails: TestWhatATopicSentBeforeItFailedIsHandled
// Says: and handle was called for 1 event of "b", want 5
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

type item struct {
	topic string
	ev    *feedv1.Event
}

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
	queue := make(chan item, 8)
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
				case queue <- item{topic, ev}:
				case <-ctx.Done():
					fail(ctx.Err())
					return
				}
			}
		})
	}
	go func() { wg.Wait(); close(queue) }()
	for it := range queue {
		if ctx.Err() != nil {
			continue
		}
		if err := handle(it.topic, it.ev); err != nil {
			if ctx.Err() != nil {
				fail(ctx.Err())
			}
			fail(err)
		}
	}
	return first
}
