// Wrong: tells those who wait that the fan-in is closed, when the stream has ended.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: (the fan-in is closed), want
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	mu     sync.Mutex
	closed bool
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }
func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if err := f.stream.Send(ev); err != nil {
		f.closed = true
		return err
	}
	return nil
}
func (f *fanIn) Close() { f.mu.Lock(); f.closed = true; f.mu.Unlock() }
