// Wrong: a lock around all makes a server wait for the other.
//
// Fails: TestTwoAtOnceKnowNothingOfEachOther
// Says: the second shutdown waits for a lock that the first one holds
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

var mu sync.Mutex

func shutdown(srv *grpc.Server, drain func(), budget time.Duration) error {
	mu.Lock()
	defer mu.Unlock()
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
