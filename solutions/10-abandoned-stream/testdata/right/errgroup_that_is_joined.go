// Right: receives in one goroutine and matches in another, both joined.
package main

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// firstMatch returns the first event of the topic that matches. If match fails
// it returns that error, and errNoMatch if the topic ends before a match.
func firstMatch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	match func(*feedv1.Event) (bool, error)) (*feedv1.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	both, ctx := errgroup.WithContext(ctx)
	next := make(chan *feedv1.Event, 16)
	both.Go(func() error {
		defer close(next)
		for {
			ev, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			select {
			case next <- ev:
			case <-ctx.Done():
				return nil
			}
		}
	})
	// What match said counts, even if the other goroutine failed before it.
	var found *feedv1.Event
	var failed error
	both.Go(func() error {
		for ev := range next {
			ok, err := match(ev)
			if err != nil {
				failed = err
			} else if ok {
				found = ev
			}
			if err != nil || ok {
				cancel() // ends the Recv of the other
				return nil
			}
		}
		return nil
	})
	switch err := both.Wait(); {
	case failed != nil || found != nil:
		return found, failed
	case err != nil:
		return nil, err
	}
	return nil, errNoMatch
}
