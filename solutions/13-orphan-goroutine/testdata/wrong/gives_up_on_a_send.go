// Wrong: sends on a goroutine and returns after 30 s: the Send is not over.
//
// Fails: TestALongSendMakesNoHeartbeatEarly
// Says: Watch returned, and its Send at answer.go:
// Says: was still running
package main

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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

		sent := make(chan error, 1)
		go func() { sent <- stream.Send(next) }()
		select {
		case err := <-sent:
			if err != nil {
				return err
			}
		case <-time.After(30 * time.Second):
			return status.Error(codes.DeadlineExceeded, "client does not read")
		}
		t.Reset(s.beat)
	}
}
