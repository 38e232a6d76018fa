// Wrong: Close closes the channel while producers send to it.
//
// Fails: TestCloseSendsWhatWasAccepted
// Says: Send panicked: send on closed channel
package main

import (
	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	queue  chan *feedv1.Event
	done   chan struct{}
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream, make(chan *feedv1.Event, 8), make(chan struct{})}
	go func() {
		defer close(f.done)
		for ev := range f.queue {
			if err := stream.Send(ev); err != nil {
				return
			}
		}
	}()
	return f
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	select {
	case f.queue <- ev:
		return nil
	case <-f.done:
		return errClosed
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	}
}

func (f *fanIn) Close() {
	close(f.queue)
	<-f.done
}
