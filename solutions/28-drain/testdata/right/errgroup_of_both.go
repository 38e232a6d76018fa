// Right: an errgroup for both stops, and a channel for its end.
package main

import (
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

var (
	// errCut says that streams were cut. Every handler has returned.
	errCut = errors.New("streams were cut")

	// errDeaf says that handlers still run.
	errDeaf = errors.New("handlers still run")
)

func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	var g errgroup.Group
	ended, over := make(chan error, 1), make(chan struct{})
	gone := make(chan struct{})
	g.Go(func() error { defer close(gone); srv.GracefulStop(); return nil })
	g.Go(func() error {
		select {
		case <-gone:
			return nil
		case <-time.After(budget):
			close(over)
			srv.Stop()
			return errCut
		}
	})
	drain()
	go func() { ended <- g.Wait() }()
	select {
	case err := <-ended:
		return err
	case <-over:
	}
	select {
	case err := <-ended:
		return err
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
