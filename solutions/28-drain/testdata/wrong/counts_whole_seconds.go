// Wrong: its budget is a number of seconds.
//
// Fails: TestTheBudgetCutsWhatIsLeft
// Says: budget 1.37s: a stream was cut after 1s, want 1.37s to 1.47s (its client had Unavailable)
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
	budget = budget.Truncate(time.Second)
	select {
	case <-stopped:
		return nil
	case <-time.After(budget):
	}
	go srv.Stop()
	select {
	case <-stopped:
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
