// Wrong: a lock for each topic: two topics are two senders.
//
// Fails: TestOneSendAtATime
// Says: goroutines are in the stream's Send at the same time
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	mu     sync.Mutex
	topics map[string]*sync.Mutex
	closed bool
}

func newFanIn(stream watchServer) *fanIn {
	return &fanIn{stream: stream, topics: make(map[string]*sync.Mutex)}
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return errClosed
	}
	topic := f.topics[ev.GetTopic()]
	if topic == nil {
		topic = new(sync.Mutex)
		f.topics[ev.GetTopic()] = topic
	}
	f.mu.Unlock()
	topic.Lock()
	defer topic.Unlock()
	return f.stream.Send(ev)
}

func (f *fanIn) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
}
