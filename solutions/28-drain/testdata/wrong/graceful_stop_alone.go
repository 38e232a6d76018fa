// Wrong: waits for handlers that nobody tells.
//
// Fails: TestDrainedHandlersEndTheirStreams
// Says: has not called drain, 500ms after its start: nobody has told the handlers: blocked in GracefulStop at answer.go
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
	srv.GracefulStop()
	return nil
}
