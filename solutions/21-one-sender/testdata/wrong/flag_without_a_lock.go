// Wrong: a flag for Close, and no lock.
//
// Fails: TestOneSendAtATime
// Says: goroutines are in the stream's Send at the same time
package main

import (
	"sync/atomic"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	closed atomic.Bool
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }

func (f *fanIn) Send(ev *feedv1.Event) error {
	if f.closed.Load() {
		return errClosed
	}
	return f.stream.Send(ev)
}

func (f *fanIn) Close() { f.closed.Store(true) }
