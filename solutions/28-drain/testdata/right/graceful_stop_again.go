// Right: GracefulStop once more after Stop, to wait for the handlers.
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
	go drain()
	first := make(chan struct{})
	go func() { defer close(first); srv.GracefulStop() }()
	t := time.NewTimer(budget)
	defer t.Stop()
	select {
	case <-first:
		return nil
	case <-t.C:
	}
	all := make(chan struct{})
	go func() { defer close(all); srv.Stop(); srv.GracefulStop() }()
	t.Reset(800 * time.Millisecond)
	select {
	case <-all:
		return errCut
	case <-t.C:
		return errors.Join(errCut, errDeaf)
	}
}
