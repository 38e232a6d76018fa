// Right: one goroutine that decides, and a list of what it waits for.
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
	ended := make(chan struct{})
	go func() { defer close(ended); srv.GracefulStop() }()
	drain()
	result := error(nil)
	for _, step := range []struct {
		wait time.Duration
		next error
		do   func()
	}{
		{budget, errCut, func() { go srv.Stop() }},
		{900 * time.Millisecond, errDeaf, func() {}},
	} {
		timer := time.NewTimer(step.wait)
		select {
		case <-ended:
			timer.Stop()
			return result
		case <-timer.C:
			result = step.next
			step.do()
		}
	}
	return result
}
