// Wrong: cuts every stream, also those that would have ended.
//
// Fails: TestDrainedHandlersEndTheirStreams
// Says: has not called drain
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
	srv.Stop()
	return nil
}
