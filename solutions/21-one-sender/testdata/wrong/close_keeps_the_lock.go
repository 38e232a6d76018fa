// Wrong: Close takes the lock and keeps it, so that nobody sends any more.
//
// Fails: TestOneSendAtATime
// Says: a Send that was called after Close does not return: it waits at answer.go:
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

func (f *fanIn) Close() { f.mu.Lock() }
