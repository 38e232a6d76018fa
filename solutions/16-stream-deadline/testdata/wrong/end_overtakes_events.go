// Wrong: lets the end of the stream overtake the events that wait for handle.
//
// Fails: TestHandleMayTakeItsTime
// Says: sent 20 events, for each of which handle took a minute, and tail returned no error
// Says: when handle had been called for
// Says: events, want 20 before it returns
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event)) error {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(openWithin, cancel)
	stream, err := client.Watch(sctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		stream.Header()
	}
	if !timer.Stop() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return context.DeadlineExceeded
	}
	if err != nil {
		return err
	}
	events := make(chan *feedv1.Event, 16)
	end := make(chan error, 1)
	go func() {
		for {
			ev, err := stream.Recv()
			if err != nil {
				end <- err
				return
			}
			select {
			case events <- ev:
			case <-sctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case err := <-end:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		default:
		}
		select {
		case ev := <-events:
			handle(ev)
		case err := <-end:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
