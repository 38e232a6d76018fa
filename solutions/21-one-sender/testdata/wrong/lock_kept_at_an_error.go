// Wrong: returns from the error with the lock held.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: of 5 producers are still in Send, at answer.go:
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	mu     sync.Mutex
	stream watchServer
	closed bool
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return errClosed
	}
	if err := f.stream.Send(ev); err != nil {
		return err
	}
	f.mu.Unlock()
	return nil
}

func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
