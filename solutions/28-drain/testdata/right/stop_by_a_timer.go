// Right: Stop comes by AfterFunc, whose Stop says whether it came.
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
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		srv.GracefulStop()
	}()
	go drain()
	select {
	case <-ended:
		if cut.Stop() {
			return nil
		}
		return errCut
	case <-time.After(budget + 950*time.Millisecond):
		return errDeaf
	}
}
