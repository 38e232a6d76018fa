// Wrong: ends a stream after an hour without an event.
//
// Fails: TestWatchStaysAtASilentTopic
// Says: the topic was silent for 26h0m0s, its client stayed, and Watch returned 1h0m0s after it came: the client's Recv returned rpc error: code = DeadlineExceeded
package main

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server streams what its broker delivers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker
}

// Watch sends each event of the topic as it comes. It ends well when the topic
// has ended, and soon when its stream has. It gives back what it took.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	for {
		select {
		case ev, ok := <-sub.C:
			if !ok {
				return nil
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		case <-time.After(time.Hour):
			return status.Error(codes.DeadlineExceeded, "no events")
		}
	}
}
