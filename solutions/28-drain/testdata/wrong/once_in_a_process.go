// Wrong: the second server is never stopped.
//
// Fails: TestNoStreamIsCutThatEndsInTime
// Says: has not called drain
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

func stop(srv *grpc.Server, drain func(), budget time.Duration) error {
	over := time.After(budget)
	ended := make(chan struct{})
	go func() { srv.GracefulStop(); close(ended) }()
	drain()
	select {
	case <-ended:
		return nil
	case <-over:
	}
	go srv.Stop()
	select {
	case <-ended:
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}

func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	err := error(nil)
	once.Do(func() { err = stop(srv, drain, budget) })
	return err
}
