// Wrong: Stop comes with the drain.
//
// Fails: TestNoStreamIsCutThatEndsInTime
// Says: 19.5s: a stream that would have ended by itself within the budget of 20s was cut
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
	drain()
	srv.Stop()
	return nil
}
