// Wrong: goes on behind the last event that it has received, and drops what it
// has not handled.
//
// Fails: TestAfterABreakItGoesOnBehindTheLastSaved
// Says: and ended with OK while some of them waited: handled were [1 6], want [1 2 3 4 5 6 7 8 9]
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
	received, err := st.Load()
	if err != nil {
		return err
	}
	for {
		end, err := ahead(ctx, client, st, &received, handle)
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
		case codes.OutOfRange:
			if err := st.Resync(ctx); err != nil {
				return err
			}
			if received, err = st.Load(); err != nil {
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

// ahead receives while an event is handled.
func ahead(ctx context.Context, client feedv1.FeedServiceClient, st store, received *uint64, handle func(*feedv1.Event) error) (end, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys", AfterCursor: *received})
	if err != nil {
		return err, nil
	}
	queue, broken := make(chan *feedv1.Event, 100), make(chan struct{})
	go func() {
		defer close(broken)
		for {
			var ev *feedv1.Event
			if ev, end = stream.Recv(); end != nil {
				return
			}
			if ev.GetCursor() <= *received {
				continue
			}
			*received = ev.GetCursor()
			select {
			case queue <- ev:
			case <-ctx.Done():
			}
		}
	}()
	for {
		select {
		case <-broken: // what waits in the queue came from a stream that is gone
			return end, nil
		default:
		}
		select {
		case ev := <-queue:
			if err = ctx.Err(); err == nil {
				err = handle(ev)
			}
			if err == nil {
				err = st.Save(ev.GetCursor())
			}
			if err != nil {
				cancel()
				<-broken
				return nil, err
			}
		case <-broken:
			return end, nil
		}
	}
}
