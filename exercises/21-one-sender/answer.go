package main

import (
	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A fanIn lets any number of producers send on one stream.
type fanIn struct {
	stream watchServer
}

// newFanIn returns a fan-in for a stream. Nobody else sends on it.
func newFanIn(stream watchServer) *fanIn {
	return &fanIn{stream: stream}
}

// Send hands an event to the stream. Each producer calls it for its own
// events, one after the other, and leaves when it returns an error.
func (f *fanIn) Send(ev *feedv1.Event) error {
	// TODO: any number of goroutines are here at the same time.
	return f.stream.Send(ev)
}

// Close returns when everything that Send has accepted is on the stream, or the
// stream has ended. The handler calls it, once, before it returns.
func (f *fanIn) Close() {
	// TODO: no Send of the stream is at work after this, and none begins.
}
