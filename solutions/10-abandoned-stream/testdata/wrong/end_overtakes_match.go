// Wrong: receives and matches side by side, and lets the end of the topic count before a match that came first.
//
// Fails: TestWhatMatchSaysCountsAfterTheEnd
// Says: 3 events came, the topic ended with code OK while match ran for event 1
// Says: want the event
package main

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// firstMatch returns the first event of the topic that matches. If match fails
// it returns that error, and errNoMatch if the topic ends before a match.
func firstMatch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	match func(*feedv1.Event) (bool, error)) (*feedv1.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	evs := make(chan *feedv1.Event)
	g.Go(func() error {
		defer close(evs)
		for {
			ev, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return errNoMatch
			}
			if err != nil {
				return err
			}
			select {
			case evs <- ev:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	var found *feedv1.Event
	g.Go(func() error {
		for ev := range evs {
			ok, err := match(ev)
			if err != nil {
				return err
			}
			if ok {
				found = ev
				cancel()
				return nil
			}
		}
		return nil
	})
	err = g.Wait()
	if found != nil && status.Code(err) == codes.Canceled {
		return found, nil
	}
	if found != nil && errors.Is(err, context.Canceled) {
		return found, nil
	}
	return found, err
}
