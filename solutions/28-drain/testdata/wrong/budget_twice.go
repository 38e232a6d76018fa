// Wrong: waits as long again for the handlers.
//
// Fails: TestADeafHandlerDoesNotHoldItUp
// Says: has not returned after 21s
// Says: blocked in a select at answer.go
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
	go srv.Stop()
	select {
	case <-ended:
		return errCut
	case <-time.After(budget):
		return errDeaf
	}
}
