// Wrong: lets the handlers go first, and takes their clients, who come straight back.
//
// Fails: TestNothingNewComesInFromTheStart
// Says: the client of a drained stream came back 7ms after its end on another connection and had OK, want Unavailable
package main

import (
	"errors"
	"time"

	"google.golang.org/grpc"
)

var (
	// errCut says that streams were cut. Every handler has returned.
	errCut = errors.New("streams were cut")

	// errDeaf says that handlers still run.
	errDeaf = errors.New("handlers still run")
)

func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	drain()
	time.Sleep(8 * time.Millisecond) // let the handlers go first
	stopped := make(chan struct{})
	go func() { srv.GracefulStop(); close(stopped) }()
	select {
	case <-stopped:
		return nil
	case <-time.After(budget - 8*time.Millisecond):
	}
	go srv.Stop()
	select {
	case <-stopped:
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
