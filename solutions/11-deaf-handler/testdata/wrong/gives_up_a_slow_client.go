// Wrong: ends the stream of a client that reads nothing for five minutes.
//
// Fails: TestWatchLosesNothingForASlowClient
// Says: its Recv returned rpc error: code = ResourceExhausted desc = too slow, want every event and io.EOF; Watch returned 5m0s after the client came
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
			done := make(chan error, 1)
			go func() { done <- stream.Send(ev) }()
			select {
			case err := <-done:
				if err != nil {
					return err
				}
			case <-time.After(5 * time.Minute):
				return status.Error(codes.ResourceExhausted, "too slow")
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
