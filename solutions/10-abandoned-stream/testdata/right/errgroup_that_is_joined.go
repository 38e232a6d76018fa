// Right: receives in one goroutine and matches in another, both joined.
package main

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

var errFound = errors.New("found")

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
	var found *feedv1.Event
	both.Go(func() error {
		for ev := range next {
			ok, err := match(ev)
			if err != nil || ok {
				found = ev
				cancel() // ends the Recv of the other
			}
			if err != nil {
				return err
			}
			if ok {
				return errFound
			}
		}
		return nil
	})
	switch err := both.Wait(); {
	case errors.Is(err, errFound):
		return found, nil
	case err != nil:
		return nil, err
	}
	return nil, errNoMatch
}
