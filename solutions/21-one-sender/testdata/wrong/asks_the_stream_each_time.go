// Wrong: forgets the stream's error, and asks the stream again.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: the stream's Send was called again after it had failed (answer.go:
// Says: its first error is final
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
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	return f.stream.Send(ev)
}

func (f *fanIn) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
}
