// Wrong: the sender leaves when no event came for a minute, and nobody starts another.
//
// Fails: TestAnHourOfSilenceChangesNothing
// Says: the stream has taken all that came, an hour after the events before, and 3 of 6 producers are still in Send, at answer.go:
package main

import (
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	queue  chan *feedv1.Event
	quit   chan struct{}
	done   chan struct{}
	err    error // once done is closed
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, queue: make(chan *feedv1.Event, 0), quit: make(chan struct{}), done: make(chan struct{})}
	go f.send()
	return f
}

func (f *fanIn) send() {
	defer close(f.done)
	for {
		select {
		case ev := <-f.queue:
			if f.err = f.stream.Send(ev); f.err != nil {
				return
			}
		case <-time.After(time.Minute):
			return
		case <-f.quit:
			f.err = errClosed
			return
		case <-f.stream.Context().Done():
			f.err = f.stream.Context().Err()
			return
		}
	}
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	select {
	case <-f.quit:
		return errClosed
	default:
	}
	select {
	case f.queue <- ev:
		return nil
	case <-f.quit:
		return errClosed
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	}
}

func (f *fanIn) Close() {
	close(f.quit)
	<-f.done
}
