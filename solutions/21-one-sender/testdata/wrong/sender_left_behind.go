// Wrong: the sender waits for the next event for ever.
//
// Fails: TestOneSendAtATime
// Says: a goroutine that was started at answer.go:
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	mu     sync.Mutex
	queue  chan *feedv1.Event
	reply  chan error
	closed bool
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, queue: make(chan *feedv1.Event), reply: make(chan error)}
	go func() {
		for ev := range f.queue {
			f.reply <- stream.Send(ev)
		}
	}()
	return f
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return errClosed
	}
	f.queue <- ev
	return <-f.reply
}

func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
