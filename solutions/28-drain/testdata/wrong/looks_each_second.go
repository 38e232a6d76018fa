// Wrong: sees a second late that everybody has gone.
//
// Fails: TestDrainedHandlersEndTheirStreams
// Says: has not returned after 500ms, half a second after the last stream and handler ended: sleeping at answer.go
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
	go func() { srv.GracefulStop(); close(ended) }()
	drain()
	for start := time.Now(); time.Since(start) < budget; time.Sleep(time.Second) {
		select {
		case <-ended:
			return nil
		default:
		}
	}
	go srv.Stop()
	select {
	case <-ended:
		return errCut
	case <-time.After(900 * time.Millisecond):
		return errDeaf
	}
}
