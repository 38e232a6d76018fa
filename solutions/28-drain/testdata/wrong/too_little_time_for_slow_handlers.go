// Wrong: gives them 460 ms.
//
// Fails: TestTheBudgetCutsWhatIsLeft
// Says: returned errDeaf after 20.46s, and handlers still ran that listen and would have returned within half a second: wait for them (1 of the kind "context")
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
	case <-time.After(budget):
	}
	go srv.Stop()
	select {
	case <-stopped:
		return errCut
	case <-time.After(460 * time.Millisecond):
		return errDeaf
	}
}
