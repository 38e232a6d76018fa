// Wrong: gives a Send up after a second, and lets the next one begin.
//
// Fails: TestProducersWaitWhileTheClientDoesNotRead
// Says: the client has not read for a day, and Send returned an error for
// Says: the stream's Send is still at work with it (answer.go:
package main

import (
	"errors"
	"sync"
	"time"

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
	sent := make(chan error, 1)
	go func() { sent <- f.stream.Send(ev) }()
	select {
	case err := <-sent:
		return err
	case <-time.After(time.Second):
		return errors.New("the client is too slow")
	}
}

func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
