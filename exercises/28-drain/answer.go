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

// shutdown stops srv. It tells the handlers by drain, cuts the streams that are
// left after budget, and returns a second later at the latest. It returns nil if
// all streams have ended by themselves, errCut or errDeaf.
func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	// TODO: this waits for streams whose handlers have not been told yet.
	srv.GracefulStop()
	drain()
	// TODO: when the budget is used up, cut what is left.
	// TODO: handlers that hear of it need a moment. Others never return. Say
	// how it went.
	return nil
}
