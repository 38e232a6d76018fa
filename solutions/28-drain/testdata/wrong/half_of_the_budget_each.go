// Wrong: keeps half of the budget for the handlers that Stop tells.
//
// Fails: TestNoStreamIsCutThatEndsInTime
// Says: was cut: its client has "rpc error: code = Unavailable
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
	over := time.After(budget / 2)
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
	case <-time.After(budget/2 + 900*time.Millisecond):
		return errDeaf
	}
}
