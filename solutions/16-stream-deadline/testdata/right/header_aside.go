// Right: one goroutine waits for the header while this one is in Recv already.
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
	sctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() { cancel(ctx.Err()) })
	defer stop()
	timer := time.AfterFunc(openWithin, func() { cancel(context.DeadlineExceeded) })
	defer timer.Stop()
	stream, err := client.Watch(sctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err != nil {
		if sctx.Err() != nil {
			return context.Cause(sctx)
		}
		return err
	}
	go func() {
		stream.Header()
		timer.Stop()
	}()
	for {
		ev, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && sctx.Err() != nil:
			return context.Cause(sctx)
		case err != nil:
			return err
		}
		handle(ev)
	}
}
