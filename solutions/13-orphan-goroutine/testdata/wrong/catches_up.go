// Wrong: counts the beats from the one before, to keep in step: after a Send that lasted it catches up.
//
// Fails: TestALongSendMakesNoHeartbeatEarly
// Says: a heartbeat was sent at answer.go:
// Says: had begun, want 15s of silence
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
	var last time.Time = time.Now()
	for {
		wait := time.Until(last.Add(s.beat))
		if wait < time.Millisecond {
			wait = time.Millisecond
		}
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
			last = time.Now()
		case <-time.After(wait):
			if err := stream.Send(heartbeat(req.GetTopic())); err != nil {
				return err
			}
			last = last.Add(s.beat) // no drift
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
