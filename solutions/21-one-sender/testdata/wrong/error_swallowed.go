// Wrong: the sender takes everything to the end, and no producer hears that the stream has ended.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: the stream's Send was called again after it had failed (answer.go:
package main

import (
	"log"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	queue  chan *feedv1.Event
	done   chan struct{}
	mu     sync.RWMutex
	closed bool
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{queue: make(chan *feedv1.Event), done: make(chan struct{})}
	go func() {
		defer close(f.done)
		var failed sync.Once
		for ev := range f.queue {
			if err := stream.Send(ev); err != nil {
				failed.Do(func() { log.Printf("send: %v", err) })
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
	f.queue <- ev
	return nil
}

func (f *fanIn) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	close(f.queue)
	<-f.done
}
