// Right: one goroutine sends, and each producer waits for what came of its event.
package main

import (
	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type request struct {
	ev    *feedv1.Event
	reply chan error
}

type fanIn struct {
	requests     chan request
	closed, done chan struct{}
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{make(chan request), make(chan struct{}), make(chan struct{})}
	go func() {
		defer close(f.done)
		var err error
		for {
			select {
			case r := <-f.requests:
				if err == nil {
					err = stream.Send(r.ev)
				}
				r.reply <- err
			case <-f.closed:
				return
			}
		}
	}()
	return f
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	r := request{ev, make(chan error, 1)}
	select {
	case f.requests <- r:
		return <-r.reply // the end of the stream ends this wait
	case <-f.closed:
		return errClosed
	}
}

func (f *fanIn) Close() {
	close(f.closed)
	<-f.done
}
