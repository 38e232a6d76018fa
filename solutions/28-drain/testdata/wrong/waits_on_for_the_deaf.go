// Wrong: looks each second whether the deaf handlers have gone.
//
// Fails: TestADeafHandlerDoesNotHoldItUp
// Says: returned errDeaf, and 1ms after that, and after the end of the last handler, something of it still runs: sleeping at answer.go
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
	stopped := make(chan struct{})
	go func() { srv.GracefulStop(); close(stopped) }()
	drain()
	select {
	case <-stopped:
		return nil
	case <-time.After(budget):
	}
	go srv.Stop()
	select {
	case <-stopped:
		return errCut
	case <-time.After(900 * time.Millisecond):
	}
	go func() { // say so until they are gone
		for {
			select {
			case <-stopped:
				return
			default:
				time.Sleep(time.Second)
			}
		}
	}()
	return errDeaf
}
