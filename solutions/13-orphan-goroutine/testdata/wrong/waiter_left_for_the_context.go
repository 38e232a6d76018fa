// Wrong: leaves a goroutine that waits for the stream's context, which ends when Watch has returned.
//
// Fails: TestWatchSendsEventsInTimeAndEndsWithTheTopic
// Says: Watch returned, and a goroutine of it is left:
// Says: at answer.go:
package main

import (
	"context"
	"time"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server streams what its broker delivers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker
	beat   time.Duration // how long a stream may be silent
}

func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	ctx, cancel := context.WithCancel(context.WithoutCancel(stream.Context()))
	go func() { // a detached context that ends with the stream's
		<-stream.Context().Done()
		cancel()
	}()
	t := time.NewTimer(s.beat)
	defer t.Stop()
	for {
		next := heartbeat(req.GetTopic())
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			next = ev
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := stream.Send(next); err != nil {
			return err
		}
		t.Reset(s.beat)
	}
}
