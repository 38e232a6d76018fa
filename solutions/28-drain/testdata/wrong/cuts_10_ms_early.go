// Wrong: cuts before its budget is over.
//
// Fails: TestTheBudgetCutsWhatIsLeft
// Says: budget 20s: a stream was cut after 19.99s, want 20s to 20.1s (its client had Unavailable)
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
	stopped := make(chan struct{})
	go func() { srv.GracefulStop(); close(stopped) }()
	drain()
	select {
	case <-stopped:
		return nil
	case <-time.After(budget - 10*time.Millisecond):
	}
	go srv.Stop()
	select {
	case <-stopped:
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
