// Wrong: only the first server of a process is drained.
//
// Fails: TestDrainedHandlersEndTheirStreams
// Says: has not called drain; an earlier shutdown of another server did: does it keep state at package level?
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

var once sync.Once

func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	stopped := make(chan struct{})
	go func() { srv.GracefulStop(); close(stopped) }()
	once.Do(drain) // SIGTERM may come twice
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
		return errDeaf
	}
}
