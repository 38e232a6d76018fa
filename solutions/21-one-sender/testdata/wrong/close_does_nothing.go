// Wrong: Close leaves everything as it is: who comes later sends on.
//
// Fails: TestOneSendAtATime
// Says: the stream's Send was called after Close had returned (answer.go:
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	mu     sync.Mutex
	stream watchServer
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stream.Send(ev)
}

func (f *fanIn) Close() {}
