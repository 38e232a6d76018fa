// Wrong: leaves the goroutine that opens when the time is up, and its stream.
//
// Fails: TestAnOpeningEndsAfterFiveSeconds
// Says: the server took the stream and sent no header. tail returned, and a second later, with the connection open
// Says: 1 of 1 RPCs never ended (Watch, opened at answer.go:
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
	type opening struct {
		stream grpc.ServerStreamingClient[feedv1.Event]
		err    error
	}
	opened := make(chan opening, 1)
	go func() {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
		if err == nil {
			stream.Header()
		}
		opened <- opening{stream, err}
	}()
	var stream grpc.ServerStreamingClient[feedv1.Event]
	select {
	case o := <-opened:
		if o.err != nil {
			return o.err
		}
		stream = o.stream
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-time.After(openWithin):
		return status.Error(codes.DeadlineExceeded, "not open in time")
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
