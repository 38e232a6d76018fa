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

// moment is what handlers have to return when their streams have been cut.
const moment = 900 * time.Millisecond

// shutdown stops srv. It tells the handlers by drain, cuts the streams that are
// left after budget, and returns a second later at the latest. It returns nil if
// all streams have ended by themselves, errCut or errDeaf.
func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	over := time.After(budget) // counts from the start
	ended := make(chan struct{})
	go func() {
		srv.GracefulStop() // nothing new from now on; waits for every handler, also after Stop
		close(ended)
	}()
	drain()
	select {
	case <-ended:
		return nil
	case <-over:
	}
	go srv.Stop() // cuts at once; with WaitForHandlers it does not return while a deaf one runs
	select {
	case <-ended:
		return errCut
	case <-time.After(moment):
		return errDeaf
	}
}
