// Wrong: Close sets a flag, and the last Send is still at work.
//
// Fails: TestCloseSendsWhatWasAccepted
// Says: Close returned while the stream's Send was at work
package main

import (
	"sync"
	"sync/atomic"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	mu     sync.Mutex
	stream watchServer
	closed atomic.Bool
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed.Load() {
		return errClosed
	}
	return f.stream.Send(ev)
}

func (f *fanIn) Close() { f.closed.Store(true) }
