// Wrong: a channel of a million places.
//
// Fails: TestProducersWaitWhileTheClientDoesNotRead
// Says: returned nil for 25, which it keeps or has dropped, want at most 16
package main

import (
	"context"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	ctx    context.Context
	queue  chan *feedv1.Event
	mu     sync.RWMutex
	closed bool
	done   chan struct{}
}

func newFanIn(stream watchServer) *fanIn {
	ctx, failed := context.WithCancelCause(stream.Context())
	f := &fanIn{ctx: ctx, queue: make(chan *feedv1.Event, 1_000_000), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		defer failed(nil)
		for ev := range f.queue {
			if err := stream.Send(ev); err != nil {
				failed(err)
				return
			}
		}
	}()
	return f
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return errClosed
	}
	if f.ctx.Err() != nil {
		return context.Cause(f.ctx)
	}
	f.queue <- ev
	return nil
}

func (f *fanIn) Close() {
	f.mu.Lock()
	f.closed = true
	close(f.queue)
	f.mu.Unlock()
	<-f.done
}
