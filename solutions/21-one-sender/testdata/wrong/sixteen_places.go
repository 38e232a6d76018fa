// Wrong: a channel of 16 places, and one event more at work.
//
// Fails: TestProducersWaitWhileTheClientDoesNotRead
// Says: your Send returned nil for 17
// Says: the one at work counts
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream     watchServer
	events     chan *feedv1.Event
	quit, done chan struct{}
	mu         sync.RWMutex
	closed     bool
	err        error
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, events: make(chan *feedv1.Event, 16), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		for ev := range f.events {
			if f.err = stream.Send(ev); f.err != nil {
				return
			}
		}
	}()
	return f
}
func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.closed {
		return errClosed
	}
	select {
	case <-f.done:
		return f.err
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	default:
	}
	select {
	case f.events <- ev:
		return nil
	case <-f.done:
		return f.err
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	}
}
func (f *fanIn) Close() {
	f.mu.Lock()
	f.closed = true
	close(f.events)
	f.mu.Unlock()
	<-f.done
}
