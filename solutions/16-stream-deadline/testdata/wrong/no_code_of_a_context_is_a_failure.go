// Wrong: takes Canceled and DeadlineExceeded for good ends once the stream is open.
//
// Fails: TestTheFailureOfAnOpenStreamIsTold
// Says: the server opened the stream and failed with code Canceled after 2 events
// Says: tail returned no error
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
		if md, _ := stream.Header(); md == nil && timer.Stop() { // it has ended
			_, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	if !timer.Stop() {
		if ctx.Err() != nil {
			return status.FromContextError(ctx.Err()).Err()
		}
		return status.Error(codes.DeadlineExceeded, "not open in time")
	}
	if err != nil {
		return err
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		switch status.Code(err) {
		case codes.OK:
		case codes.Canceled, codes.DeadlineExceeded:
			return ctx.Err() // nil if it was not the caller
		default:
			return err
		}
		handle(ev)
	}
}
