// Wrong: tries the lock, and returns an error when it is taken.
//
// Fails: TestOneSendAtATime
// Says: the stream took each event in the end, and Send returned an error for
package main

import (
	"errors"
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
	if !f.mu.TryLock() {
		return errors.New("busy")
	}
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	return f.stream.Send(ev)
}

func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
