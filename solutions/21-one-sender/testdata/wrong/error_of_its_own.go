// Wrong: tells every producer that the stream has ended, and not how.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: has failed with ResourceExhausted while its context lives
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
	err    error
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	if err := f.stream.Send(ev); err != nil {
		f.err = errors.New("send: " + err.Error())
	}
	return f.err
}

func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = errClosed
	}
}
