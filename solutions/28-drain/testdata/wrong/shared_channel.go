// Wrong: two shutdowns share the channel of the news that all has ended. That
// it is stored atomically makes it no race, and no better.
//
// Fails: TestTwoAtOnceKnowNothingOfEachOther
// Says: panicked: close of closed channel
package main

import (
	"errors"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
)

var (
	// errCut says that streams were cut. Every handler has returned.
	errCut = errors.New("streams were cut")

	// errDeaf says that handlers still run.
	errDeaf = errors.New("handlers still run")
)

var ended atomic.Pointer[chan struct{}]

func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	over := time.After(budget)
	all := make(chan struct{})
	ended.Store(&all)
	go func() { srv.GracefulStop(); close(*ended.Load()) }()
	drain()
	select {
	case <-*ended.Load():
		return nil
	case <-over:
	}
	go srv.Stop()
	select {
	case <-*ended.Load():
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
