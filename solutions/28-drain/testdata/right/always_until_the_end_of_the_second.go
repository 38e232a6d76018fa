// Right: after a cut it returns a second later, however fast the handlers are.
package main

import (
	"errors"
	"sync"
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
	var all sync.WaitGroup
	all.Go(srv.GracefulStop)
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	drain()
	select {
	case <-ended:
		return nil
	case <-time.After(budget):
	}
	go srv.Stop()
	time.Sleep(950 * time.Millisecond)
	select {
	case <-ended:
		return errCut
	default:
		return errDeaf
	}
}
