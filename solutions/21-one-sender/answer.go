package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A fanIn lets any number of producers send on one stream.
type fanIn struct {
	stream watchServer

	// mu is held around each Send of the stream: a producer that waits for it
	// waits for the client, which is what it should do.
	mu  sync.Mutex
	err error // what every Send returns from now on
}

// newFanIn returns a fan-in for a stream. Nobody else sends on it.
func newFanIn(stream watchServer) *fanIn {
	return &fanIn{stream: stream}
}

// Send hands an event to the stream. Each producer calls it for its own
// events, one after the other, and leaves when it returns an error.
func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		// The end of the stream ends this wait. Whoever comes to the lock
		// after that finds the reason and need not ask the stream again.
		f.err = f.stream.Send(ev)
	}
	return f.err
}

// Close returns when everything that Send has accepted is on the stream, or the
// stream has ended. The handler calls it, once, before it returns.
func (f *fanIn) Close() {
	f.mu.Lock() // the Send that is at work comes first
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = errClosed
	}
}
