// Wrong: says that time was up, and not what that meant.
//
// Fails: TestTheBudgetCutsWhatIsLeft
// Says: returned the error "context deadline exceeded", want errCut
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
	ended := make(chan struct{})
	go func() { srv.GracefulStop(); close(ended) }()
	drain()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		go srv.Stop()
		select {
		case <-ended:
		case <-time.After(900 * time.Millisecond):
		}
		return ctx.Err()
	}
}
