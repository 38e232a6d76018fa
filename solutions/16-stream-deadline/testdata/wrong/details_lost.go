// Wrong: makes a new status of the server's code and text. The details are gone.
//
// Fails: TestARefusalIsToldAtOnce
// Says: the server refused with code NotFound, without a header
// Says: with 0 details, want the whole status
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

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
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return status.Errorf(status.Code(err), "%s", status.Convert(err).Message())
		}
		handle(ev)
	}
}
