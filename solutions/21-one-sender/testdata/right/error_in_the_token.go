// Right: the error travels in the token that is the turn.
package main

import (
	"fmt"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	turn   chan error
}

func newFanIn(stream watchServer) *fanIn {
	f := &fanIn{stream: stream, turn: make(chan error, 1)}
	f.turn <- nil
	return f
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	select {
	case err := <-f.turn:
		if err == nil {
			err = f.stream.Send(ev)
			if err != nil {
				err = fmt.Errorf("send: %w", err)
			}
		}
		f.turn <- err
		return err
	case <-f.stream.Context().Done():
		return fmt.Errorf("fan-in: %w", f.stream.Context().Err())
	}
}

func (f *fanIn) Close() {
	err := <-f.turn
	if err == nil {
		err = errClosed
	}
	f.turn <- err
}
