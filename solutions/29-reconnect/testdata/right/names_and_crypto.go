// Right: helpers with the names that come to mind, and numbers of crypto/rand.
package main

import (
	"context"
	"crypto/rand"
	"math/big"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type (
	stream   struct{ feedv1.FeedService_WatchClient }
	attempt  struct{ events int }
	backoff  struct{ next time.Duration }
	call     struct{ attempt }
	result   struct{ err error }
	event    = *feedv1.Event
	follower struct {
		backoff
		call
		result
	}
)

var start = first

// follow hands the events of a topic to handle, over the end of each stream,
// until handle fails, the server's answer is final, or ctx ends.
func follow(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	handle func(event) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := follower{}
	for reset(&f.backoff); ; {
		f.err = run(ctx, client, topic, func(ev event) error {
			err := handle(ev)
			reset(&f.backoff)
			f.events++
			return err
		})
		if final(f.err) {
			return f.err.(interface{ Unwrap() error }).Unwrap()
		}
		if err := sleep(ctx, jitter(f.next)); err != nil {
			return err
		}
		f.next = limit(2 * f.next)
	}
}

type once struct{ error }

func (o once) Unwrap() error { return o.error }

func run(ctx context.Context, client feedv1.FeedServiceClient, topic string, handle func(event) error) error {
	watch, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for s := (stream{watch}); err == nil; {
		var ev event
		if ev, err = receive(s); err == nil && ctx.Err() != nil {
			return ctx.Err()
		} else if err == nil {
			if err := handle(ev); err != nil {
				return once{err}
			}
		}
	}
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
		return once{err}
	}
	return err
}

func receive(s stream) (event, error) { return s.Recv() }

func final(err error) bool {
	_, is := err.(once)
	return is
}

func reset(b *backoff) { b.next = start }

func limit(d time.Duration) time.Duration { return min(d, longest) }

func jitter(d time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(d/2)+1))
	if err != nil {
		panic(err)
	}
	return d/2 + time.Duration(n.Int64())
}

func sleep(ctx context.Context, d time.Duration) error { return pause(ctx, time.After(d)) }

func pause(ctx context.Context, ready <-chan time.Time) error {
	select {
	case <-ready:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}
