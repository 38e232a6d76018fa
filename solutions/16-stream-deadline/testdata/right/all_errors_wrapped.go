// Right: the cause says whose cancel it was, and all errors get a context of words.
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

var errNotOpen = errors.New("stream is not open in time")

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event)) error {
	sctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(openWithin, func() { cancel(errNotOpen) })
	defer timer.Stop()
	err := func() error {
		stream, err := client.Watch(sctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		if _, err := stream.Header(); err != nil {
			return err
		}
		timer.Stop()
		for {
			ev, err := stream.Recv()
			if err != nil {
				return err
			}
			handle(ev)
		}
	}()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case context.Cause(sctx) == errNotOpen:
		return fmt.Errorf("tail %q: %w (%w)", topic, context.DeadlineExceeded, errNotOpen)
	case ctx.Err() != nil:
		return fmt.Errorf("tail %q: %w", topic, ctx.Err())
	default:
		return fmt.Errorf("tail %q: %w", topic, err)
	}
}
