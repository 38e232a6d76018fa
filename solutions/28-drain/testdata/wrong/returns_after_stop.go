// Wrong: does not wait for the handlers that Stop has told.
//
// Fails: TestTheBudgetCutsWhatIsLeft
// Says: returned errCut after 20s, and handlers still ran that listen and would have returned within half a second: wait for them (1 of the kind "context")
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
	srv.Stop()
	return errCut
}
