// Right: returns the errors of contexts as they are.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc"

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
	if !timer.Stop() && ctx.Err() == nil {
		return fmt.Errorf("open %s: %w", topic, context.DeadlineExceeded)
	}
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			handle(ev)
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return fmt.Errorf("tail %s: %w", topic, err)
}
