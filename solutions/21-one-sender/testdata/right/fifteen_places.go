// Right: one goroutine sends from a channel of 15 places; producers count themselves in and out.
package main

import (
	"context"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	ctx    context.Context
	failed context.CancelCauseFunc
	queue  chan *feedv1.Event
	done   chan struct{}

	mu     sync.Mutex
	closed bool
	inSend sync.WaitGroup
	quit   chan struct{}
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, queue: make(chan *feedv1.Event, 15), done: make(chan struct{}), quit: make(chan struct{})}
	f.ctx, f.failed = context.WithCancelCause(stream.Context())
	go f.send()
	return f
}

func (f *fanIn) send() {
	defer close(f.done)
	for {
		select {
		case ev, ok := <-f.queue:
			if !ok {
				return
			}
			if err := f.stream.Send(ev); err != nil {
				f.failed(err)
				return
			}
		case <-f.ctx.Done():
			return
		}
	}
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return errClosed
	}
	f.inSend.Add(1)
	f.mu.Unlock()
	defer f.inSend.Done()
	select {
	case f.queue <- ev:
		return nil
	case <-f.quit:
		return errClosed
	case <-f.ctx.Done():
		return context.Cause(f.ctx)
	}
}

func (f *fanIn) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	close(f.quit)
	f.inSend.Wait()
	close(f.queue)
	<-f.done
	f.failed(nil)
}
