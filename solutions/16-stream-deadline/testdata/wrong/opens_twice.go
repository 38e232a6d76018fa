// Wrong: tries a stream with a deadline, and opens the real one if that worked.
//
// Fails: TestTailHandsOnEveryEventInOrder
// Says: the server sent 5 events and ended well, and tail called Watch 2 times, want once
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string, handle func(*feedv1.Event)) error {
	trying, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	trial, err := client.Watch(trying, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	if md, _ := trial.Header(); md == nil {
		_, err := trial.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	cancel()
	ctx, end := context.WithCancel(ctx)
	defer end()
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
