// Right: receives in a goroutine, hands over on the caller's, and waits for a timer's function.
package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type over struct{ error }

func (o over) Unwrap() error { return o.error }

func follow(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event) error) error {
	failed := 0
	for {
		got, err := tryOnce(ctx, client, topic, handle)
		var o over
		switch {
		case errors.As(err, &o):
			return o.error
		case ctx.Err() != nil:
			return ctx.Err()
		}
		if got {
			failed = 0
		}
		d := min(first<<min(failed, 6), longest)
		failed++
		done := make(chan struct{})
		t := time.AfterFunc(d/2+rand.N(d/2+1), func() { close(done) })
		select {
		case <-done:
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		}
	}
}

// tryOnce receives in a goroutine, handles here.
func tryOnce(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(*feedv1.Event) error) (got bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	events := make(chan *feedv1.Event)
	var end error
	go func() {
		defer close(events)
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				select {
				case events <- ev:
				case <-ctx.Done():
					err = ctx.Err()
				}
			}
		}
		end = err
	}()
	defer func() {
		cancel()
		for range events {
		}
	}()
	for ev := range events {
		if ctx.Err() != nil {
			return got, ctx.Err()
		}
		if err := handle(ev); err != nil {
			return got, over{err}
		}
		got = true
	}
	switch status.Code(end) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
		return got, over{end}
	}
	return got, end
}
