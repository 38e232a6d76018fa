// Wrong: takes the error from a field that nobody has set when the context ends.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: want at most 16
package main

import (
	"context"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream     watchServer
	ctx        context.Context
	cancel     context.CancelFunc
	events     chan *feedv1.Event
	quit, done chan struct{}
	mu         sync.Mutex
	err        error
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, events: make(chan *feedv1.Event), done: make(chan struct{}), quit: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(stream.Context())
	go func() {
		defer close(f.done)
		for {
			select {
			case ev := <-f.events:
				if err := stream.Send(ev); err != nil {
					f.mu.Lock()
					f.err = err
					f.mu.Unlock()
					f.cancel()
					return
				}
			case <-f.quit:
				return
			case <-f.ctx.Done():
				return
			}
		}
	}()
	return f
}
func (f *fanIn) Send(ev *feedv1.Event) error {
	select {
	case <-f.quit:
		return errClosed
	default:
	}
	select {
	case f.events <- ev:
		return nil
	case <-f.quit:
		return errClosed
	case <-f.ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.err
	}
}
func (f *fanIn) Close() { close(f.quit); <-f.done }
