// Wrong: lets the stream's context give the place back, which ends when Watch has returned.
//
// Fails: TestWatchSendsEventsInTimeAndEndsWithTheTopic
// Says: Watch returned, and its place at the broker is still taken
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
	context.AfterFunc(stream.Context(), sub.Close)
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

		case <-stream.Context().Done():
			return stream.Context().Err()
		}

		if err := stream.Send(next); err != nil {
			return err
		}
		t.Reset(s.beat)
	}
}
