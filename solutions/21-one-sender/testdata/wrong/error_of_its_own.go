// Wrong: tells every producer that the stream has ended, and not how.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: has failed with Unavailable
// Says: returned code Unknown
package main

import (
	"errors"
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
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	if err := f.stream.Send(ev); err != nil {
		return errors.New("send: " + err.Error())
	}
	return nil
}

func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
