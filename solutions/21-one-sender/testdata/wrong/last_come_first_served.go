// Wrong: takes the newest event from the list first.
//
// Fails: TestOneSendAtATime
// Says: the order of a producer's events is lost
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	mu     sync.Mutex
	more   *sync.Cond
	list   []*feedv1.Event
	closed bool
	err    error
	done   chan struct{}
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, done: make(chan struct{})}
	f.more = sync.NewCond(&f.mu)
	go f.send()
	return f
}

func (f *fanIn) send() {
	defer close(f.done)
	for {
		f.mu.Lock()
		for len(f.list) == 0 && !f.closed {
			f.more.Wait()
		}
		if len(f.list) == 0 {
			f.mu.Unlock()
			return
		}
		ev := f.list[len(f.list)-1]
		f.list = f.list[:len(f.list)-1]
		f.mu.Unlock()
		if err := f.stream.Send(ev); err != nil {
			f.mu.Lock()
			f.err = err
			f.mu.Unlock()
			return
		}
	}
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return f.err
	case f.closed:
		return errClosed
	case f.stream.Context().Err() != nil:
		return f.stream.Context().Err()
	}
	f.list = append(f.list, ev)
	f.more.Signal()
	return nil
}

func (f *fanIn) Close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.more.Signal()
	<-f.done
}
