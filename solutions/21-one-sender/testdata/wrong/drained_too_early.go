// Wrong: a Send that has looked whether it is closed puts its event where Close has emptied.
//
// Fails: TestCloseSendsWhatWasAccepted
// Says: Close has returned, and 1 events for which Send returned nil were not sent
package main

import (
	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream     watchServer
	events     chan *feedv1.Event
	quit, done chan struct{}
	err        error
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, events: make(chan *feedv1.Event, 15), done: make(chan struct{}), quit: make(chan struct{})}
	go func() {
		defer close(f.done)
		for {
			select {
			case ev := <-f.events:
				if f.err = stream.Send(ev); f.err != nil {
					return
				}
			case <-f.quit:
				for {
					select {
					case ev := <-f.events:
						if f.err = stream.Send(ev); f.err != nil {
							return
						}
					default:
						return
					}
				}
			case <-stream.Context().Done():
				f.err = stream.Context().Err()
				return
			}
		}
	}()
	return f
}
func (f *fanIn) Send(ev *feedv1.Event) error {
	select {
	case <-f.quit:
		return errClosed
	default:
	}
	select {
	case <-f.done:
		return f.err
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	default:
	}
	select {
	case f.events <- ev:
		return nil
	case <-f.quit:
		return errClosed
	case <-f.done:
		return f.err
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	}
}
func (f *fanIn) Close() { close(f.quit); <-f.done }
