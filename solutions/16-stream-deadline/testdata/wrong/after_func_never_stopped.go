// Wrong: hangs a function on its caller's context, and leaves it there.
//
// Fails: TestTailHandsOnEveryEventInOrder
// Says: the server sent 5 events and ended well. tail returned, and a second later, with the connection open: the context.AfterFunc of answer.go:
// Says: was never stopped
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
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, cancel)
	timer := time.AfterFunc(openWithin, cancel)
	stream, err := client.Watch(sctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		stream.Header()
	}
	late := !timer.Stop()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if late {
		return context.DeadlineExceeded
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
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		handle(ev)
	}
}
