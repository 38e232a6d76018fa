// Wrong: sends a heartbeat of its own making, without the topic.
//
// Fails: TestAHeartbeatComesAfterEachBeatOfSilence
// Says: Watch sent {Id:"" Topic:"" Body:"heartbeat"} at answer.go:
// Says: want event 1 or heartbeat("alerts")
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

func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	t := time.NewTimer(s.beat)
	defer t.Stop()
	for {
		next := &feedv1.Event{Body: "heartbeat"}
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
