// Wrong: closes when something fails, and not when the topic has ended.
//
// Fails: TestWatchEndsWellWithItsTopic
// Says: the topic ended, and 100ms later Watch had returned, but its subscription was open; an hour later it still was
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
				return nil
			}
			if err := stream.Send(ev); err != nil {
				sub.Close()
				return err
			}
		case <-stream.Context().Done():
			sub.Close()
			return stream.Context().Err()
		}
	}
}
