// Wrong: takes what a closed channel yields for events.
//
// Fails: TestWatchEndsWellWithItsTopic
// Says: the topic ended after 3 events, which closes C, and the client then got Event{}: nobody published that; Watch is blocked in Send at answer.go:
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
	defer sub.Close()
	for {
		select {
		case ev := <-sub.C:
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
