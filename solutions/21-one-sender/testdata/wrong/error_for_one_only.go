// Wrong: the first producer gets the error, and the events of the others are thrown away.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: the stream's Send was called again after it had failed (answer.go:
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	queue  chan *feedv1.Event
	failed chan error
	done   chan struct{}
	mu     sync.RWMutex
	closed bool
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, queue: make(chan *feedv1.Event), failed: make(chan error, 1), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		told := false
		for ev := range f.queue {
			if err := stream.Send(ev); err != nil && !told {
				f.failed <- err
				told = true
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
	select {
	case err := <-f.failed:
		return err
	case f.queue <- ev:
		return nil
	}
}

func (f *fanIn) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	close(f.queue)
	<-f.done
}
