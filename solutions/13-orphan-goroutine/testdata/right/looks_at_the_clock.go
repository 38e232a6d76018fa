// Right: looks each 50 ms how long ago it sent: late by less than README.md allows, and through SendMsg.
package main

import (
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

// Watch sends each event of the topic as it comes, and a heartbeat whenever
// the stream has been silent for s.beat. It ends when the topic has ended,
// with the topic's own ending, or when the client is gone.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	last := time.Now()
	check := time.NewTicker(50 * time.Millisecond)
	defer check.Stop()
	for {
		next := heartbeat(req.GetTopic())
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			next = ev
		case <-check.C:
			if time.Since(last) < s.beat {
				continue
			}
		case <-stream.Context().Done():
			return nil
		}
		if err := stream.SendMsg(next); err != nil {
			return err
		}
		last = time.Now()
	}
}
