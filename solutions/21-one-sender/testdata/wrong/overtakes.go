// Wrong: sends itself when nobody sends, and so overtakes what it has handed over.
//
// Fails: TestEventsOfAProducerKeepTheirOrder
// Says: the order of a producer's events is lost
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream     watchServer
	turn       sync.Mutex
	events     chan *feedv1.Event
	quit, done chan struct{}
	once       sync.Once
	failed     chan struct{}
	err        error
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, events: make(chan *feedv1.Event), done: make(chan struct{}), quit: make(chan struct{}), failed: make(chan struct{})}
	go func() {
		defer close(f.done)
		for {
			select {
			case ev := <-f.events:
				f.turn.Lock()
				err := f.send(ev)
				f.turn.Unlock()
				if err != nil {
					return
				}
			case <-f.quit:
				return
			case <-f.failed:
				return
			case <-stream.Context().Done():
				return
			}
		}
	}()
	return f
}
func (f *fanIn) send(ev *feedv1.Event) error {
	select {
	case <-f.failed:
		return f.err
	default:
	}
	if err := f.stream.Send(ev); err != nil {
		f.err = err
		close(f.failed)
		return err
	}
	return nil
}
func (f *fanIn) Send(ev *feedv1.Event) error {
	select {
	case <-f.quit:
		return errClosed
	default:
	}
	if f.turn.TryLock() { // nobody sends: no need to hand over
		defer f.turn.Unlock()
		select {
		case <-f.quit:
			return errClosed
		default:
		}
		return f.send(ev)
	}
	select {
	case f.events <- ev:
		return nil
	case <-f.quit:
		return errClosed
	case <-f.failed:
		return f.err
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	}
}
func (f *fanIn) Close() { close(f.quit); <-f.done; f.turn.Lock(); f.turn.Unlock() }
