// Wrong: a goroutine for each event waits for the lock, and Send does not.
//
// Fails: TestProducersWaitWhileTheClientDoesNotRead
// Says: returned nil for 25, which it keeps or has dropped, want at most 16
package main

import (
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
	if err := f.stream.Context().Err(); err != nil {
		return err
	}
	go func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if !f.closed {
			f.stream.Send(ev)
		}
	}()
	return nil
}

func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
