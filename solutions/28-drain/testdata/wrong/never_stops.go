// Wrong: gives up when its budget is over, and the server goes on.
//
// Fails: TestTheBudgetCutsWhatIsLeft
// Says: budget 20s: 20.1s after the start a stream has not been cut: blocked in GracefulStop at answer.go
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
	over := time.After(budget)
	ended := make(chan struct{})
	go func() { srv.GracefulStop(); close(ended) }()
	drain()
	select {
	case <-ended:
		return nil
	case <-over:
	}
	select {
	case <-ended:
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
