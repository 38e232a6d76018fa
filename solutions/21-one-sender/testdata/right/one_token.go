// Right: a channel with one token is the lock; who waits for it hears of the end.
package main

import (
	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type fanIn struct {
	stream watchServer
	token  chan struct{}
	closed chan struct{}
	err    error // guarded by the token
}

func newFanIn(stream watchServer) *fanIn {
	return &fanIn{stream: stream, token: make(chan struct{}, 1), closed: make(chan struct{})}
}

func (f *fanIn) Send(ev *feedv1.Event) error {
	select {
	case f.token <- struct{}{}:
		defer func() { <-f.token }()
	case <-f.stream.Context().Done():
		return f.stream.Context().Err()
	case <-f.closed:
		return errClosed
	}
	select {
	case <-f.closed:
		return errClosed
	default:
		if f.err == nil {
			f.err = f.stream.Send(ev)
		}
		return f.err
	}
}

func (f *fanIn) Close() {
	close(f.closed)
	f.token <- struct{}{} // the last Send has returned; nobody gets it back
}
