// Wrong: drains when GracefulStop has returned, or when the budget is over.
//
// Fails: TestNoStreamIsCutThatEndsInTime
// Says: called drain after 20s, want it at the start
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
	select {
	case <-ended:
		drain()
		return nil
	case <-over:
	}
	drain()
	go srv.Stop()
	select {
	case <-ended:
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
