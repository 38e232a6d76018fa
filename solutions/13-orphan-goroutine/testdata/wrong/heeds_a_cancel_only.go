// Wrong: ends when the context was cancelled, and not when its deadline passed.
//
// Fails: TestWatchEndsWithItsClient
// Says: the deadline passed at a silent topic, and Watch returned
package main

import (
	"context"
	"errors"
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
	gone := make(chan struct{})
	stop := context.AfterFunc(stream.Context(), func() {
		if errors.Is(stream.Context().Err(), context.Canceled) {
			close(gone)
		}
	})
	defer stop()
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
		case <-gone:
			return nil
		}
		if err := stream.Send(next); err != nil {
			return err
		}
		t.Reset(s.beat)
	}
}
