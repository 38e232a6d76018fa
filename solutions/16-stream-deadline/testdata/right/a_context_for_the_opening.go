// Right: the opening has a context of its own, whose error says who ended it.
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string, handle func(*feedv1.Event)) error {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	opening, done := context.WithTimeout(ctx, openWithin)
	defer done()
	stop := context.AfterFunc(opening, cancel)
	stream, err := client.Watch(streamCtx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		stream.Header()
	}
	if !stop() {
		return status.FromContextError(opening.Err()).Err()
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
