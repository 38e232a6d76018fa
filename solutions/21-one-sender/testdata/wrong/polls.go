// Wrong: polls the lock, and sleeps in between.
//
// Fails: TestOneSendAtATime
// Says: and sleep there: wait for the stream's Send, do not poll
package main

import (
	"sync"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	mu     sync.Mutex
	closed bool
	err    error
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }
func (f *fanIn) lock() {
	for !f.mu.TryLock() {
		time.Sleep(time.Millisecond)
	}
}
func (f *fanIn) Send(ev *feedv1.Event) error {
	f.lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if f.err == nil {
		f.err = f.stream.Send(ev)
	}
	return f.err
}
func (f *fanIn) Close() { f.lock(); f.closed = true; f.mu.Unlock() }
