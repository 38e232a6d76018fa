package main

import (
	"context"
	"errors"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchAll watches topics, each by a stream of its own, all at once, and hands
// their events to handle, one at a time. It returns when all have ended: nil, or
// the first error, which ends the others.
func watchAll(ctx context.Context, client feedv1.FeedServiceClient, topics []string,
	handle func(topic string, ev *feedv1.Event) error) error {
	errs := make(chan error)
	for _, topic := range topics {
		go func() {
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
			for err == nil {
				var ev *feedv1.Event
				if ev, err = stream.Recv(); err == nil {
					err = handle(topic, ev) // TODO: who else calls handle at this moment?
				}
			}
			if errors.Is(err, io.EOF) { // TODO: whose io.EOF is it?
				err = nil
			}
			errs <- err
		}()
	}
	for range topics {
		if err := <-errs; err != nil {
			return err // TODO: what becomes of the other streams, and of their goroutines?
		}
	}
	return nil
}
