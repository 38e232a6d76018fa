// Wrong: resets the ticker after an event and not after a heartbeat: a Send that lasts leaves a tick behind.
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
	t := time.NewTicker(s.beat)
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
		if next.GetBody() != "heartbeat" {
			t.Reset(s.beat)
		}
	}
}
