// Wrong: the timer is set again after an event and not after a heartbeat.
//
// Fails: TestAHeartbeatComesAfterEachBeatOfSilence
// Says: in an hour of silence Watch sent 1 heartbeats, want one each 15s
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
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
			silence.Reset(s.beat)
		case <-silence.C:
			if err := stream.Send(heartbeat(req.GetTopic())); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
