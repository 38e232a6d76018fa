// Wrong: drops what waits in its queue when the stream has ended with OK.
//
// Fails: TestAfterABreakItGoesOnBehindTheLastSaved
// Says: and ended with OK while some of them waited: handled were
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
const wait = 1500 * time.Millisecond

// resume hands the events of the topic to handle, one after the other, and goes
// on where it was, after whatever has ended the stream or the last call.
func resume(ctx context.Context, client feedv1.FeedServiceClient, st store, handle func(*feedv1.Event) error) error {
	for {
		end, err := follow(ctx, client, st, handle)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(end, io.EOF) {
			return nil
		}
		switch status.Code(end) {
		case codes.Unavailable, codes.ResourceExhausted:
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-ctx.Done():
				t.Stop()
				return ctx.Err()
			}
		case codes.OutOfRange:
			if err := st.Resync(ctx); err != nil {
				return err
			}
		default:
			return end
		}
	}
}

// follow runs one stream; end is how the stream ended, err is our own.
func follow(ctx context.Context, client feedv1.FeedServiceClient, st store, handle func(*feedv1.Event) error) (end, err error) {
	last, err := st.Load()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys", AfterCursor: last})
	if err != nil {
		return err, nil
	}
	queue := make(chan *feedv1.Event, 16)
	var ended error
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			ev, err := stream.Recv()
			if err != nil {
				ended = err
				return
			}
			select {
			case queue <- ev:
			case <-ctx.Done():
				ended = ctx.Err()
				return
			}
		}
	}()
	defer func() { cancel(); <-done }()
	one := func(ev *feedv1.Event) (end, err error) {
		if ctx.Err() != nil {
			return ctx.Err(), nil
		}
		if ev.GetCursor() <= last {
			return nil, nil
		}
		if err := handle(ev); err != nil {
			return nil, err
		}
		if err := st.Save(ev.GetCursor()); err != nil {
			return nil, err
		}
		last = ev.GetCursor()
		return nil, nil
	}
	for {
		select {
		case <-done: // looks first, so that it loses something each time
			return ended, nil
		default:
		}
		select {
		case ev := <-queue:
			if end, err := one(ev); end != nil || err != nil {
				return end, err
			}
		case <-done:
			return ended, nil
		}
	}
}
