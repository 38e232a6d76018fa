// Right: the timer is not stopped. It finds the stream open and does nothing.
package main

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event)) error {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	const (
		opening = iota
		open
		late
	)
	var state atomic.Int32
	time.AfterFunc(openWithin, func() {
		if state.CompareAndSwap(opening, late) {
			cancel()
		}
	})
	stream, err := client.Watch(sctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		stream.Header()
	}
	if !state.CompareAndSwap(opening, open) {
		return status.FromContextError(context.DeadlineExceeded).Err()
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
