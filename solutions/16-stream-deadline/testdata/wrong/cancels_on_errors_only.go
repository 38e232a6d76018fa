// Wrong: cancels after an error, and not after a good end: the context stays.
//
// Fails: TestTailHandsOnEveryEventInOrder
// Says: the server sent 5 events and ended well. tail returned, and a second later, with the connection open: the context made at answer.go:
// Says: was never cancelled
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
	timer := time.AfterFunc(openWithin, cancel)
	stream, err := client.Watch(sctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		stream.Header()
	}
	if !timer.Stop() {
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return context.DeadlineExceeded
	}
	if err != nil {
		cancel()
		return err
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			cancel()
			return err
		}
		handle(ev)
	}
}
