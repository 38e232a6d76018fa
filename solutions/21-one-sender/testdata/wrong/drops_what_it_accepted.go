// Wrong: Close ends the sender while events are in the channel.
//
// Fails: TestCloseSendsWhatWasAccepted
// Says: events for which Send returned nil were not sent
package main

import (
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
	f := &fanIn{stream: stream, queue: make(chan *feedv1.Event, 8), quit: make(chan struct{}), done: make(chan struct{})}
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
	case <-f.done:
		return f.err
	}
}

func (f *fanIn) Close() {
	close(f.quit)
	<-f.done
}
