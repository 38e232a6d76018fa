// Wrong: waits for an error from Header, which has none to give.
//
// Fails: TestAnOpeningEndsAfterFiveSeconds
// Says: the server took the stream and sent no header, and tail returned code Canceled
// Says: want code DeadlineExceeded
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(openWithin, cancel)
	defer timer.Stop()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err != nil {
		return status.Error(codes.DeadlineExceeded, "not open in time")
	}
	if _, err := stream.Header(); err != nil {
		return status.Error(codes.DeadlineExceeded, "not open in time")
	}
	timer.Stop()
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
