// Wrong: Close does nothing when the stream has ended, and a Send that comes later calls the stream's.
//
// Fails: TestNothingIsSentAfterClose
// Says: the stream's Send was called after Close had returned
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
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }
func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if f.err == nil {
		f.err = f.stream.Send(ev)
	}
	return f.err
}
func (f *fanIn) Close() {
	if f.stream.Context().Err() != nil {
		return
	} // nothing to send any more
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
}
