// Right: asks for the header by a call option as well, and looks at it.
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
	timer := time.AfterFunc(openWithin, cancel)
	stream, err := client.Watch(streamCtx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	late := func() bool { return !timer.Stop() && ctx.Err() == nil }
	if err == nil {
		if md, _ := stream.Header(); md != nil && !late() {
			return read(stream, handle)
		}
		_, err = stream.Recv() // refused, or ended well, or cancelled
	}
	switch {
	case late():
		return status.Error(codes.DeadlineExceeded, "not open in time")
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

func read(stream grpc.ServerStreamingClient[feedv1.Event], handle func(*feedv1.Event)) error {
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
