// Right: a condition variable, and two timers.
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

func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	mu := sync.Mutex{}
	c := sync.NewCond(&mu)
	state, done := 0, false // 1: budget over, 2: all over
	go func() { srv.GracefulStop(); mu.Lock(); done = true; mu.Unlock(); c.Broadcast() }()
	drain()
	mark := func(n int) func() { return func() { mu.Lock(); state = n; mu.Unlock(); c.Broadcast() } }
	a := time.AfterFunc(budget, mark(1))
	defer a.Stop()
	b := time.AfterFunc(budget+600*time.Millisecond, mark(2))
	defer b.Stop()
	mu.Lock()
	defer mu.Unlock()
	for !done && state == 0 {
		c.Wait()
	}
	if state == 0 {
		return nil
	}
	mu.Unlock()
	go srv.Stop()
	mu.Lock()
	for !done && state < 2 {
		c.Wait()
	}
	if done {
		return errCut
	}
	return errDeaf
}
