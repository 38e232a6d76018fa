// Wrong: who waits for its turn gives up after two hours.
//
// Fails: TestProducersWaitWhileTheClientDoesNotRead
// Says: the client has not read for a day, and Send returned an error for
// Says: a Send that waits has no time limit of its own
package main

import (
	"context"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	sem    chan struct{}
	closed bool
	err    error
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream, sem: make(chan struct{}, 1)} }
func (f *fanIn) Send(ev *feedv1.Event) error {
	select {
	case f.sem <- struct{}{}:
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	case <-time.After(2 * time.Hour):
		return context.DeadlineExceeded
	}
	defer func() { <-f.sem }()
	if f.closed {
		return errClosed
	}
	if f.err == nil {
		f.err = f.stream.Send(ev)
	}
	return f.err
}
func (f *fanIn) Close() { f.sem <- struct{}{}; f.closed = true; <-f.sem }
