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

// tail hands the events of the topic to handle until the server ends the
// stream or ctx ends. If the stream is not open within openWithin it gives up
// with DeadlineExceeded.
func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event)) error {
	// A deadline cannot be taken back, a timer can. It bounds everything up to
	// the header: the wait for a server, for a place, for the handler.
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(openWithin, cancel)
	stream, err := client.Watch(streamCtx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		// Returns when the server has accepted, when it has refused, and when
		// streamCtx has ended; which of them, Recv tells.
		stream.Header()
	}
	if !timer.Stop() {
		// It has cancelled, or is about to. gRPC would call that Canceled, so
		// the name comes from here, unless the caller has ended meanwhile.
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		return status.Errorf(codes.DeadlineExceeded, "not open within %v", openWithin)
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
