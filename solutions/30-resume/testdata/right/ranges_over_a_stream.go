// Right: ranges over the stream.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type ownError struct {
	what string
	err  error
}

func (e *ownError) Error() string { return e.what + ": " + e.err.Error() }
func (e *ownError) Unwrap() error { return e.err }

func events(ctx context.Context, client feedv1.FeedServiceClient, last uint64) iter.Seq2[*feedv1.Event, error] {
	return func(yield func(*feedv1.Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys", AfterCursor: last})
		for err == nil {
			var ev *feedv1.Event
			ev, err = stream.Recv()
			if err == nil && !yield(ev, nil) {
				return
			}
		}
		yield(nil, err)
	}
}

func resume(ctx context.Context, client feedv1.FeedServiceClient, st store, handle func(*feedv1.Event) error) error {
	for ctx.Err() == nil {
		last, err := st.Load()
		if err != nil {
			return &ownError{"load", err}
		}
		var end error
		for ev, err := range events(ctx, client, last) {
			if err != nil {
				end = err
				break
			}
			if ctx.Err() != nil {
				return status.FromContextError(ctx.Err()).Err()
			}
			c := ev.GetCursor()
			if c <= last {
				continue
			}
			if err := handle(ev); err != nil {
				return &ownError{fmt.Sprintf("handle %d", c), err}
			}
			if err := st.Save(c); err != nil {
				return &ownError{"save", err}
			}
			last = c
		}
		if end == io.EOF {
			return nil
		}
		switch c := status.Code(end); {
		case ctx.Err() != nil:
			return ctx.Err()
		case c == codes.OutOfRange:
			if err := st.Resync(ctx); err != nil {
				return errors.Join(errors.New("resync"), err)
			}
		case c == codes.Unavailable || c == codes.ResourceExhausted:
			w, stop := context.WithTimeout(ctx, time.Second+rand.N(time.Second))
			<-w.Done()
			stop()
		default:
			return fmt.Errorf("watch: %w", end)
		}
	}
	return ctx.Err()
}
