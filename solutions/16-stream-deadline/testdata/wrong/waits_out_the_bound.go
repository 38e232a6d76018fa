// Wrong: notices a refusal when the five seconds are over.
//
// Fails: TestTailHandsOnEveryEventInOrder
// Says: the server ended well, without a header or an event
// Says: want it 0s after the beginning, or at most 1s later
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
	accepted := make(chan bool, 1)
	opened := make(chan bool)
	var stream grpc.ServerStreamingClient[feedv1.Event]
	var err error
	go func() {
		defer close(opened)
		if stream, err = client.Watch(streamCtx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true)); err != nil {
			return
		}
		if md, _ := stream.Header(); md != nil {
			accepted <- true
		}
	}()
	select {
	case <-accepted:
	case <-ctx.Done():
	case <-time.After(openWithin):
		select {
		case <-opened: // refused
		default:
			cancel()
			<-opened
			return status.Error(codes.DeadlineExceeded, "not open in time")
		}
	}
	<-opened
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
