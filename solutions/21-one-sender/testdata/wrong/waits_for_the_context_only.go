// Wrong: when the stream's Send has failed, the others wait for the context, which may live.
//
// Fails: TestEveryProducerLearnsOfTheEnd
// Says: while its context lives, and
// Says: of 5 producers are still in Send, at answer.go:
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	events chan *feedv1.Event
	quit   chan struct{} // closed by Close
	failed chan struct{} // closed when stream.Send has failed
	done   chan struct{} // closed when the sender is gone
	err    error
	once   sync.Once
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{
		stream: stream,
		events: make(chan *feedv1.Event),
		quit:   make(chan struct{}),
		failed: make(chan struct{}),
		done:   make(chan struct{}),
	}
	go f.run()
	return f
}

func (f *fanIn) run() {
	defer close(f.done)
	for {
		select {
		case ev := <-f.events:
			if err := f.stream.Send(ev); err != nil {
				f.err = err
				close(f.failed)
				return
			}
		case <-f.quit:
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
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	case <-f.quit:
		return errClosed
	}
}

func (f *fanIn) Close() {
	f.once.Do(func() { close(f.quit) })
	<-f.done
}
