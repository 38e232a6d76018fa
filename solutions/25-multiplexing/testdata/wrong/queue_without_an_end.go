// Wrong: puts the events into a queue without a limit: a slow handle fills the memory, and the server never waits.
//
// Fails: TestWatchAllLeavesToTheServerWhatHandleHasNotTaken
// Says: events of a topic from Recv that handle had not begun with, want at most 10
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
	var (
		mu    sync.Mutex
		queue []func() error
		more  = make(chan struct{}, 1)
	)
	poke := func() {
		select {
		case more <- struct{}{}:
		default:
		}
	}
	var streams sync.WaitGroup
	for _, topic := range topics {
		streams.Add(1)
		group.Go(func() error {
			defer poke()
			defer streams.Done()
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
				mu.Lock()
				queue = append(queue, func() error { return handle(topic, ev) })
				mu.Unlock()
				poke()
			}
		})
	}
	ended := make(chan struct{})
	go func() { streams.Wait(); close(ended) }()
	group.Go(func() error {
		for {
			over := false
			select {
			case <-more:
			case <-ended:
				over = true
			}
			mu.Lock()
			batch := queue
			queue = nil
			mu.Unlock()
			for _, one := range batch {
				if err := one(); err != nil {
					return err
				}
			}
			if over {
				return nil
			}
		}
	})
	return group.Wait()
}
