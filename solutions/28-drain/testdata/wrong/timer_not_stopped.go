// Wrong: the timer stops the server once more, when its budget is over.
//
// Fails: TestAServerThatWasStoppedIsForgotten
// Says: returned nil, and something of it still holds the server: a timer that will run
package main

import (
	"errors"
	"sync/atomic"
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
	stopped := make(chan struct{})
	go func() { srv.GracefulStop(); close(stopped) }()
	drain()
	var cut atomic.Bool
	time.AfterFunc(budget, func() { cut.Store(true); srv.Stop() })
	select {
	case <-stopped:
		if cut.Load() {
			return errCut
		}
		return nil
	case <-time.After(budget + 900*time.Millisecond):
		return errDeaf
	}
}
