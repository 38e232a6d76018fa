// Right: a ticker looks after the opening, and is up to 0.4 s late.
package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func tail(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event)) error {
	start := time.Now()
	sctx, cancel := context.WithCancel(ctx)
	var open, late atomic.Bool
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Add(1)
	go func() {
		defer wg.Done()
		tick := time.NewTicker(900 * time.Millisecond)
		defer tick.Stop()
		for !open.Load() {
			select {
			case <-sctx.Done():
				return
			case <-tick.C:
				if !open.Load() && time.Since(start) >= openWithin {
					late.Store(true)
					cancel()
				}
			}
		}
	}()
	stream, err := client.Watch(sctx, &feedv1.WatchRequest{Topic: topic}, grpc.WaitForReady(true))
	if err == nil {
		_, _ = stream.Header()
		open.Store(true)
	}
	for {
		var ev *feedv1.Event
		if err == nil {
			ev, err = stream.Recv()
		}
		if err == nil {
			handle(ev)
			continue
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case ctx.Err() != nil:
			return status.FromContextError(ctx.Err()).Err()
		case late.Load():
			return status.Errorf(codes.DeadlineExceeded, "topic %s is not open after %v", topic, time.Since(start))
		}
		return err
	}
}
