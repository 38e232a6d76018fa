// Right: knows its own errors by their type, and has one function for a stream.
package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// wait passes before a stream that has broken is opened again.
const wait = time.Second

// own is an error that is not the stream's.
type own struct{ error }

// resume hands the events of the topic to handle, one after the other, and goes
// on where it was, after whatever has ended the stream or the last call.
func resume(ctx context.Context, client feedv1.FeedServiceClient, st store, handle func(*feedv1.Event) error) error {
	for {
		err := once(ctx, client, st, handle)
		if mine, ok := err.(own); ok {
			return mine.error
		}
		switch {
		case err == io.EOF:
			return nil
		case ctx.Err() != nil:
			return status.FromContextError(ctx.Err()).Err()
		case status.Code(err) == codes.OutOfRange:
			if err := st.Resync(ctx); err != nil {
				return err
			}
			continue
		case status.Code(err) != codes.Unavailable && status.Code(err) != codes.ResourceExhausted:
			return fmt.Errorf("watch: %w", err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

func once(ctx context.Context, client feedv1.FeedServiceClient, st store, handle func(*feedv1.Event) error) error {
	last, err := st.Load()
	if err != nil {
		return own{err}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys", AfterCursor: last})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err != nil || ev.GetCursor() <= last {
			continue
		}
		if err = ctx.Err(); err != nil {
			break
		}
		if err := handle(ev); err != nil {
			return own{err}
		}
		if err := st.Save(ev.GetCursor()); err != nil {
			return own{err}
		}
		last = ev.GetCursor()
	}
	return err
}
