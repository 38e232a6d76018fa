// Right: a list of those who wait; each that has sent wakes the next, and Close is one of them.
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream  watchServer
	mu      sync.Mutex // held for a moment only
	busy    bool
	waiters []chan struct{}
	closing bool
	err     error
}

func newFanIn(stream watchServer) *fanIn { return &fanIn{stream: stream} }

func (f *fanIn) acquire() {
	f.mu.Lock()
	if !f.busy {
		f.busy = true
		f.mu.Unlock()
		return
	}
	w := make(chan struct{})
	f.waiters = append(f.waiters, w)
	f.mu.Unlock()
	<-w
}

func (f *fanIn) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.waiters) == 0 {
		f.busy = false
		return
	}
	w := f.waiters[0]
	f.waiters = f.waiters[1:]
	close(w)
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	closing := f.closing
	f.mu.Unlock()
	if closing {
		return errClosed
	}
	f.acquire()
	defer f.release()
	if f.err != nil {
		return f.err
	}
	f.err = f.stream.Send(ev)
	return f.err
}

func (f *fanIn) Close() {
	f.mu.Lock()
	f.closing = true
	f.mu.Unlock()
	f.acquire()
	defer f.release()
	if f.err == nil {
		f.err = errClosed
	}
}
