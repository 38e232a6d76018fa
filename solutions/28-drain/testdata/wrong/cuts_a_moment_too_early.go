// Wrong: says errCut although all streams have ended, because the budget decides.
//
// Fails: TestDrainedHandlersEndTheirStreams
// Says: returned errCut, want nil
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
	ended := make(chan struct{})
	go func() { srv.GracefulStop(); close(ended) }()
	drain()
	over := false
	select {
	case <-ended:
	case <-time.After(budget):
		over = true
	}
	go srv.Stop()
	select {
	case <-ended:
		return errCut
	case <-time.After(900 * time.Millisecond):
	}
	if over {
		return errDeaf
	}
	return nil
}
