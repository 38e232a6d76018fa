// Wrong: replaces its caller's deadline by its own.
//
// Fails: TestTheDeadlineOfTheCallerHolds
// Says: the caller's deadline passed while the stream opened, 2.3s after the beginning
// Says: after 5s, want it 2.3s after the beginning
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
	// Values and cancels of the caller, but not its deadline.
	streamCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			cancel()
		}
	})
	defer stop()
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
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		handle(ev)
	}
}
