// Wrong: returns an error of handle and leaves the stream open.
//
// Fails: TestNothingIsLeft
// Says: never ended
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
	for {
		// Each stream begins with what is saved: also after a Resync, which may
		// have gone back.
		last, err := st.Load()
		if err != nil {
			return err
		}
		end, err := watch(ctx, client, last, func(ev *feedv1.Event) error {
			if ev.GetCursor() <= last {
				return nil // sent a second time
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err := handle(ev); err != nil {
				return err
			}
			last = ev.GetCursor()
			return st.Save(last) // not earlier: what is saved will not come again
		})
		if err != nil {
			return err
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

// watch returns how the stream ended, or, apart from that, the error of each: it
// may carry any code, and is not the stream's.
func watch(ctx context.Context, client feedv1.FeedServiceClient, after uint64, each func(*feedv1.Event) error) (end, err error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys", AfterCursor: after})
	if err != nil {
		return err, nil
	}
	for {
		ev, err := stream.Recv()
		if err != nil {
			return err, nil
		}
		if err := each(ev); err != nil {
			return nil, err
		}
	}
}
