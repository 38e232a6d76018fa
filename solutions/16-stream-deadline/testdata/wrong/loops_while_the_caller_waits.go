// Wrong: leaves the loop when its caller has ended, and has no error to tell of it.
//
// Fails: TestTheCancelOfTheCallerHolds
// Says: the caller cancelled while handle ran for event 1
// Says: tail returned no error
// Says: want code Canceled
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
	defer cancel()
	timer := time.AfterFunc(openWithin, cancel)
	stream, err := client.Watch(sctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		stream.Header()
	}
	if !timer.Stop() {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return context.DeadlineExceeded
	}
	if err != nil {
		return err
	}
	for first := true; first || ctx.Err() == nil; first = false {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		handle(ev)
	}
	return nil
}
