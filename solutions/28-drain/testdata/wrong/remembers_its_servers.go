// Wrong: a map at package level, which grows.
//
// Fails: TestAServerThatWasStoppedIsForgotten
// Says: still holds the server
// Says: or a variable at package level
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

var active = map[*grpc.Server]chan struct{}{}

func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	stopped := make(chan struct{})
	active[srv] = stopped
	go func() { srv.GracefulStop(); close(active[srv]) }()
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
		return errDeaf
	}
}
