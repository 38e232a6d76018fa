// Wrong: the first event of all goes out without the lock, to be quick.
//
// Fails: TestOneSendAtATime
// Says: goroutines are in the stream's Send at the same time
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	first  sync.Once
	mu     sync.Mutex
	closed bool
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }

func (f *fanIn) Send(ev *feedv1.Event) error {
	isFirst := false
	f.first.Do(func() { isFirst = true })
	if isFirst {
		return f.stream.Send(ev)
	}
	f.mu.Lock()
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
