// Wrong: one lock for all streams.
//
// Fails: TestAClientThatDoesNotReadHoldsUpNoOther
// Says: one client does not read, another takes all that comes, and 2 of 2 producers are still in Send
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

var turn sync.Mutex

type fanIn struct {
	stream watchServer
	closed bool
	err    error
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }
func (f *fanIn) Send(ev *feedv1.Event) error {
	turn.Lock()
	defer turn.Unlock()
	if f.closed {
		return errClosed
	}
	if f.err == nil {
		f.err = f.stream.Send(ev)
	}
	return f.err
}
func (f *fanIn) Close() { turn.Lock(); f.closed = true; turn.Unlock() }
