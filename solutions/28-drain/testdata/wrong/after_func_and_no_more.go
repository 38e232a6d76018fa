// Wrong: Stop comes by a timer, and GracefulStop is waited for.
//
// Fails: TestADeafHandlerDoesNotHoldItUp
// Says: has not returned after 21s, 1s after its budget was over: blocked in GracefulStop at answer.go
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
	cut := time.AfterFunc(budget, srv.Stop)
	drain()
	srv.GracefulStop()
	if !cut.Stop() {
		return errCut
	}
	return nil
}
