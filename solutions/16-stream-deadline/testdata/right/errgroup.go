// Right: an errgroup joins the watchman of the opening and the reader.
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string, handle func(*feedv1.Event)) error {
	group, streamCtx := errgroup.WithContext(ctx)
	opened := make(chan struct{})
	group.Go(func() error {
		timer := time.NewTimer(openWithin)
		defer timer.Stop()
		select {
		case <-opened:
			return nil
		case <-streamCtx.Done():
			return nil
		case <-timer.C:
			return status.Error(codes.DeadlineExceeded, "not open in time")
		}
	})
	group.Go(func() error {
		stream, err := client.Watch(streamCtx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
		if err != nil {
			return err
		}
		stream.Header()
		close(opened)
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
	})
	return group.Wait()
}
