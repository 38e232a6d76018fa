// Wrong: never takes more than a minute, whatever its budget.
//
// Fails: TestTheBudgetCutsWhatIsLeft
// Says: budget 1h0m0s: a stream was cut after 1m0s, want 1h0m0s to 1h0m0.1s (its client had Unavailable)
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
	over := time.After(min(budget, time.Minute))
	ended := make(chan struct{})
	go func() { srv.GracefulStop(); close(ended) }()
	drain()
	select {
	case <-ended:
		return nil
	case <-over:
	}
	go srv.Stop()
	select {
	case <-ended:
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
