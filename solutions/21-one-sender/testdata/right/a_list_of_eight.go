// Right: a list of at most eight events under a condition variable, and one goroutine that empties it.
package main

import (
	"context"
	"fmt"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	mu     sync.Mutex
	change *sync.Cond
	list   []*feedv1.Event
	closed bool
	err    error
	done   chan struct{}
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, done: make(chan struct{})}
	f.change = sync.NewCond(&f.mu)
	stop := context.AfterFunc(stream.Context(), func() { f.fail(stream.Context().Err()) })
	go func() {
		defer close(f.done)
		defer stop()
		f.send()
	}()
	return f
}

func (f *fanIn) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = fmt.Errorf("the stream has ended: %w", err)
	}
	f.change.Broadcast()
}

func (f *fanIn) send() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		for len(f.list) == 0 && !f.closed && f.err == nil {
			f.change.Wait()
		}
		if f.err != nil || len(f.list) == 0 {
			return
		}
		ev := f.list[0]
		f.list = f.list[1:]
		f.change.Broadcast()
		f.mu.Unlock()
		err := f.stream.Send(ev)
		f.mu.Lock()
		if err != nil && f.err == nil {
			f.err = err
			f.change.Broadcast()
		}
	}
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for len(f.list) == 8 && !f.closed && f.err == nil {
		f.change.Wait()
	}
	switch {
	case f.err != nil:
		return f.err
	case f.closed:
		return errClosed
	}
	f.list = append(f.list, ev)
	f.change.Broadcast()
	return nil
}

func (f *fanIn) Close() {
	f.mu.Lock()
	f.closed = true
	f.change.Broadcast()
	f.mu.Unlock()
	<-f.done
}
