// Wrong: Close ends its goroutine only while the stream lives.
//
// Fails: TestNothingIsSentAfterClose
// Says: still runs
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	mu     sync.Mutex
	closed bool
	err    error
	kick   chan struct{}
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, kick: make(chan struct{}, 1)}
	go func() { // notes in the log how much was sent
		n := 0
		for range f.kick {
			n++
		}
	}()
	return f
}
func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if f.err == nil {
		f.err = f.stream.Send(ev)
	}
	select {
	case f.kick <- struct{}{}:
	default:
	}
	return f.err
}
func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.err == nil && f.stream.Context().Err() == nil {
		close(f.kick)
	} // leaks when the stream has ended first
}
