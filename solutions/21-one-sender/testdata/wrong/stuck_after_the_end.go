// Wrong: the sender leaves at the first error, and nobody takes the events of the others.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: of 5 producers are still in Send, at answer.go:
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	queue  chan *feedv1.Event
	done   chan struct{}
	mu     sync.RWMutex
	closed bool
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{queue: make(chan *feedv1.Event), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for ev := range f.queue {
			if err := stream.Send(ev); err != nil {
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
