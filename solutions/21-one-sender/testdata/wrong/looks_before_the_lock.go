// Wrong: looks whether it is closed, and then waits for the lock.
//
// Fails: TestNothingIsSentAfterClose
// Says: the stream's Send was
package main

import (
	"sync"
	"sync/atomic"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	mu     sync.Mutex
	closed atomic.Bool
	err    error
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }
func (f *fanIn) Send(ev *feedv1.Event) error {
	if f.closed.Load() {
		return errClosed
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = f.stream.Send(ev)
	}
	return f.err
}
func (f *fanIn) Close() { f.closed.Store(true); f.mu.Lock(); f.mu.Unlock() }
