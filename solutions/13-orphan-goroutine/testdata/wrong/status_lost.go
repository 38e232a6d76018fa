// Wrong: takes every end of the topic for a good one.
//
// Fails: TestWatchEndsAsItsTopicFails
// Says: the topic failed with FailedPrecondition, "the topic moved", after one event; the client got 1 events and EOF, want
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
	silence := time.NewTimer(s.beat)
	defer silence.Stop()
	for {
		next := heartbeat(req.GetTopic())
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return nil
			}
			next = ev
		case <-silence.C:
		case <-stream.Context().Done():
			return nil
		}
		if err := stream.Send(next); err != nil {
			return err
		}
		silence.Reset(s.beat)
	}
}
