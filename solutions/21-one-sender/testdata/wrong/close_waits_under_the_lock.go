// Wrong: Close holds the lock while it waits for those who wait for the lock.
//
// Fails: TestCloseSendsWhatWasAccepted
// Says: Close has not returned although the stream takes every event, or has ended: it waits at answer.go:
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	mu     sync.Mutex
	stream watchServer
	closed bool
	inSend sync.WaitGroup
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.inSend.Add(1)
	defer f.inSend.Done()
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
	f.inSend.Wait()
}
