// Wrong: takes each Canceled for the timer's.
//
// Fails: TestARefusalIsToldAtOnce
// Says: the server refused with code Canceled
// Says: tail returned code DeadlineExceeded
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
	if err == nil {
		stream.Header()
	}
	timer.Stop()
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			handle(ev)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	if status.Code(err) == codes.Canceled {
		return status.Error(codes.DeadlineExceeded, "not open in time")
	}
	return err
}
