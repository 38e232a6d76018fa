// Wrong: tells the handlers, and cuts them before they can say anything.
//
// Fails: TestNoStreamIsCutThatEndsInTime
// Says: a stream that would have ended by itself within the budget of 20s was cut
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
	drain()
	time.Sleep(100 * time.Millisecond) // for their statuses
	ended := make(chan struct{})
	go func() { srv.GracefulStop(); close(ended) }()
	go srv.Stop()
	select {
	case <-ended:
		return nil
	case <-time.After(budget + 900*time.Millisecond):
		return errDeaf
	}
}
