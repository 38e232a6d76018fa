// Wrong: returns when the caller cancels, and leaves handle running.
//
// Fails: TestTheCancelOfTheCallerHolds
// Says: the caller cancelled while handle ran for event 1
// Says: tail returned while handle ran for event 1, want it to wait
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string, handle func(*feedv1.Event)) error {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(openWithin, cancel)
	stream, err := client.Watch(streamCtx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		stream.Header()
	}
	if !timer.Stop() {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		return status.Error(codes.DeadlineExceeded, "not open in time")
	}
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() {
		for {
			ev, err := stream.Recv()
			if err != nil {
				done <- err
				return
			}
			handle(ev)
		}
	}()
	select {
	case err := <-done:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
