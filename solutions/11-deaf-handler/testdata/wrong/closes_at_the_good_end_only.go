// Wrong: closes when the topic has ended, and leaves the place when the client leaves.
//
// Fails: TestWatchEndsWhenItsClientCancels
// Says: the client of a silent topic cancelled, and 100ms later Watch had returned, but its subscription was open; an hour later a publisher still waited for it
package main

import (
	"google.golang.org/grpc"

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
	for {
		select {
		case ev, ok := <-sub.C:
			if !ok {
				sub.Close()
				return nil
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
