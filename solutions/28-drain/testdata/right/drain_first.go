// Right: drains, and then calls GracefulStop.
package main

import (
	"errors"
	"fmt"
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
	drain()
	ended := make(chan struct{})
	go func() { srv.GracefulStop(); close(ended) }()
	timer := time.NewTimer(budget)
	defer timer.Stop()
	select {
	case <-ended:
		return nil
	case <-timer.C:
	}
	go srv.Stop()
	timer.Reset(800 * time.Millisecond)
	select {
	case <-ended:
		return errCut
	case <-timer.C:
		return fmt.Errorf("after %v: %w", budget, errDeaf)
	}
}
