// Wrong: gives the place back only at the end of the topic.
//
// Fails: TestWatchEndsWithItsClient
// Says: the client cancelled at a silent topic, Watch returned, and its place at the broker is still taken
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
	silence := time.NewTimer(s.beat)
	defer silence.Stop()
	for {
		next := heartbeat(req.GetTopic())
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				sub.Close()
				return sub.Err()
			}
			next = ev
		case <-silence.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(next); err != nil {
			return err
		}
		silence.Reset(s.beat)
	}
}
