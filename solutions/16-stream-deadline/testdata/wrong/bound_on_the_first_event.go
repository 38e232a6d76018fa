// Wrong: bounds the wait for the first event, which may come a month after the opening.
//
// Fails: TestAnOpenStreamLivesForDays
// Says: sent an event after an hour
// Says: tail returned code DeadlineExceeded
// Says: after 5s, want it to stay
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
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		ev, err := stream.Recv()
		if first && !timer.Stop() && ctx.Err() == nil {
			return status.Error(codes.DeadlineExceeded, "not open in time")
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		handle(ev)
	}
}
