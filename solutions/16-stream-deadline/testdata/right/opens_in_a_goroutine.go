// Right: a goroutine opens, and is joined when the time is up.
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
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stream grpc.ServerStreamingClient[feedv1.Event]
	opened := make(chan error, 1)
	go func() {
		var err error
		if stream, err = client.Watch(streamCtx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true)); err == nil {
			stream.Header()
		}
		opened <- err
	}()
	timer := time.NewTimer(openWithin)
	defer timer.Stop()
	select {
	case err := <-opened:
		if err != nil {
			return err
		}
	case <-timer.C:
		cancel()
		if err := <-opened; err == nil {
			stream.Recv()
		}
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
