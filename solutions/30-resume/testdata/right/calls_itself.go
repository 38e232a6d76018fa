// Right: calls itself for the next stream.
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// wait passes before a stream that has broken is opened again.
const wait = time.Second

// resume hands the events of the topic to handle, one after the other, and goes
// on where it was, after whatever has ended the stream or the last call.
func resume(ctx context.Context, client feedv1.FeedServiceClient, st store, handle func(*feedv1.Event) error) error {
	last, err := st.Load()
	if err != nil {
		return err
	}
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(streamCtx, &feedv1.WatchRequest{Topic: "deploys", AfterCursor: last})
	var ev *feedv1.Event
	for err == nil {
		if ev, err = stream.Recv(); err != nil {
			break
		}
		if err = ctx.Err(); err != nil {
			return err
		}
		if ev.GetCursor() > last {
			last = ev.GetCursor()
			if err := handle(ev); err != nil {
				return err
			}
			if err := st.Save(last); err != nil {
				return err
			}
		}
	}
	cancel()
	if errors.Is(err, io.EOF) {
		return nil
	}
	switch status.Code(err) {
	case codes.OutOfRange:
		if err := st.Resync(ctx); err != nil {
			return err
		}
	case codes.Unavailable, codes.ResourceExhausted:
		again := make(chan struct{})
		timer := time.AfterFunc(wait, func() { close(again) })
		defer timer.Stop()
		select {
		case <-again:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	default:
		return err
	}
	return resume(ctx, client, st, handle)
}
