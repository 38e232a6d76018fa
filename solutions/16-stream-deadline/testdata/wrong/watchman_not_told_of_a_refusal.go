// Wrong: tells the watchman of a header only. After a refusal he waits out the five seconds.
//
// Fails: TestARefusalIsToldAtOnce
// Says: without a header. tail returned, and a second later, with the connection open
// Says: answer.go:
package main

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event)) error {
	sctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opened := make(chan struct{})
	var late atomic.Bool
	go func() {
		select {
		case <-time.After(openWithin):
			late.Store(true)
			cancel()
		case <-opened:
		case <-ctx.Done(): // not sctx
		}
	}()
	stream, err := client.Watch(sctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		if md, _ := stream.Header(); md != nil {
			close(opened)
		}
	}
	if late.Load() {
		return context.DeadlineExceeded
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
