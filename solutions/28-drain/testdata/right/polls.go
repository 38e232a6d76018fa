// Right: looks twenty times a second.
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

func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	var ended atomic.Bool
	go func() {
		srv.GracefulStop()
		ended.Store(true)
	}()
	drain()
	within := func(d time.Duration) bool {
		for end := time.Now().Add(d); !ended.Load(); time.Sleep(50 * time.Millisecond) {
			if !time.Now().Before(end) {
				return false
			}
		}
		return true
	}
	switch {
	case within(budget):
		return nil
	default:
		go srv.Stop()
	}
	if within(800 * time.Millisecond) {
		return errCut
	}
	return errDeaf
}
