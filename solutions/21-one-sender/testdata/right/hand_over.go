// Right: one goroutine sends, and takes each event from the hand of its producer.
package main

import (
	"context"
	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	events chan *feedv1.Event
	closed chan struct{}
	ctx    context.Context // ends when Send has failed, too
	sender *errgroup.Group
}

func newFanIn(stream watchServer) *fanIn {
	sender, ctx := errgroup.WithContext(stream.Context())
	f := &fanIn{make(chan *feedv1.Event), make(chan struct{}), ctx, sender}
	sender.Go(func() error {
		for {
			select {
			case ev := <-f.events:
				if err := stream.Send(ev); err != nil {
					return err
				}
			case <-f.closed:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return f
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	select {
	case f.events <- ev:
		return nil
	case <-f.closed:
		return errClosed
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

func (f *fanIn) Close() {
	close(f.closed)
	f.sender.Wait()
}
