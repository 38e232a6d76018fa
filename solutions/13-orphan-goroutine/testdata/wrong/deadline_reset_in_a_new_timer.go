// Wrong: waits a whole beat and looks at the topic after it.
//
// Fails: TestWatchSendsEventsInTimeAndEndsWithTheTopic
// Says: the broker delivered event 1, and after 1s Watch had sent 0
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
	for {
		select {
		case <-time.After(s.beat):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		default:
			if err := stream.Send(heartbeat(req.GetTopic())); err != nil {
				return err
			}
		}
	}
}
