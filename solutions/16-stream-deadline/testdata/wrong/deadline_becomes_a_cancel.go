// Wrong: takes the caller's values only and couples the cancel by hand, so gRPC knows of no deadline.
//
// Fails: TestTheDeadlineOfTheCallerHolds
// Says: the caller's deadline passed
// Says: tail returned code Canceled
// Says: want code DeadlineExceeded
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
	defer context.AfterFunc(ctx, cancel)()
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
			return err
		}
		handle(ev)
	}
}
