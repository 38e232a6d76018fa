// Wrong: cuts at the next tick of a ticker.
//
// Fails: TestTheBudgetCutsWhatIsLeft
// Says: budget 1.37s: 1.47s after the start a stream has not been cut: blocked in GracefulStop at answer.go
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
	start := time.Now()
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for time.Since(start) < budget {
		select {
		case <-stopped:
			return nil
		case <-t.C:
		}
	}
	go srv.Stop()
	select {
	case <-stopped:
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
