// Wrong: Close does not wait for the Send that is at work when the context has ended.
//
// Fails: TestNothingIsSentAfterClose
// Says: Close returned while the stream's Send was at work
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
	got := make(chan struct{})
	go func() { f.mu.Lock(); f.closed = true; f.mu.Unlock(); close(got) }()
	select {
	case <-got:
	case <-f.stream.Context().Done():
	}
}
