// Wrong: stops the timer when tail returns, so it fires while the stream is open.
//
// Fails: TestAnOpenStreamLivesForDays
// Says: sent an event after an hour
// Says: tail returned code Canceled
// Says: after 5s, want it to stay
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string, handle func(*feedv1.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(openWithin, cancel)
	defer timer.Stop()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
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
