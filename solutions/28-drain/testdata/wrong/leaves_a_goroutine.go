// Wrong: the one that would cut sleeps on when all have ended.
//
// Fails: TestDrainedHandlersEndTheirStreams
// Says: returned nil, and 1ms after that, and after the end of the last handler, something of it still runs: sleeping at answer.go
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
	over := make(chan struct{})
	go func() {
		time.Sleep(budget)
		close(over)
		srv.Stop()
	}()
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
