// Wrong: the lock guards the flag, and is released before Send.
//
// Fails: TestOneSendAtATime
// Says: goroutines are in the stream's Send at the same time
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
	closed := f.closed
	f.mu.Unlock()
	if closed {
		return errClosed
	}
	return f.stream.Send(ev)
}

func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
