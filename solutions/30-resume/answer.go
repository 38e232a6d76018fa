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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for {
		last, err := st.Load() // a Resync may have gone back
		if err != nil {
			return err
		}
		stream, end := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys", AfterCursor: last})
		for end == nil {
			var ev *feedv1.Event
			if ev, end = stream.Recv(); end != nil || ev.GetCursor() <= last {
				continue // the stream's end, or an event that came before
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// What handle and Save return is not the stream's, whatever code it has.
			if err := handle(ev); err != nil {
				return err
			}
			last = ev.GetCursor()
			if err := st.Save(last); err != nil { // not earlier: what is saved does not come again
				return err
			}
		}
		switch status.Code(end) {
		case codes.Unavailable, codes.ResourceExhausted:
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return ctx.Err()
			}
		case codes.OutOfRange: // the same cursor would get the same answer, always
			if err := st.Resync(ctx); err != nil {
				return err
			}
		default:
			if errors.Is(end, io.EOF) {
				return nil
			}
			return end
		}
	}
}
