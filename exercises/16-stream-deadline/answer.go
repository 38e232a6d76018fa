package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// tail hands the events of the topic to handle until the server ends the
// stream or ctx ends. If the stream is not open within openWithin it gives up
// with DeadlineExceeded.
func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event)) error {
	// TODO: the five seconds are for the opening. What else do they end, and
	// how does the stream get rid of them once it is open?
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	// TODO: here the request is on its way. Has the server accepted it?
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
