// Wrong: two goroutines accept events, and then wait for the lock.
//
// Fails: TestOneSendAtATime
// Says: the order of a producer's events is lost
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream       watchServer
	mu           sync.Mutex
	events       chan *feedv1.Event
	quit, failed chan struct{}
	wg           sync.WaitGroup
	err          error
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, events: make(chan *feedv1.Event), quit: make(chan struct{}), failed: make(chan struct{})}
	for range 2 {
		f.wg.Go(f.work)
	}
	return f
}
func (f *fanIn) work() {
	for {
		select {
		case ev := <-f.events:
			f.mu.Lock()
			if f.err == nil {
				if f.err = f.stream.Send(ev); f.err != nil {
					close(f.failed)
				}
			}
			err := f.err
			f.mu.Unlock()
			if err != nil {
				return
			}
		case <-f.quit:
			return
		case <-f.failed:
			return
		case <-f.stream.Context().Done():
			return
		}
	}
}
func (f *fanIn) Send(ev *feedv1.Event) error {
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
func (f *fanIn) Close() { close(f.quit); f.wg.Wait() }
