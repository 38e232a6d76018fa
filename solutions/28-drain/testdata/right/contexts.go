// Right: two contexts with deadlines.
package main

import (
	"context"
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
	ctx, cancel := context.WithTimeout(context.Background(), budget)
	defer cancel()
	all, done := context.WithCancel(context.Background())
	go func() {
		defer done()
		srv.GracefulStop()
	}()
	drain()
	select {
	case <-all.Done():
		return nil
	case <-ctx.Done():
	}
	go srv.Stop()
	last, cancelLast := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancelLast()
	select {
	case <-all.Done():
		return errCut
	case <-last.Done():
		return errors.Join(errCut, errDeaf)
	}
}
