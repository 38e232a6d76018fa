// Wrong: has a select with Done, whose default sends it to a wait without.
//
// Fails: TestWatchEndsWhenTheServerStops
// Says: the server of a silent topic was stopped, and 100ms later Watch still ran: blocked receiving from a channel at answer.go:
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
		case <-stream.Context().Done():
			return stream.Context().Err()
		default:
		}
		ev, ok := <-sub.C
		if !ok {
			return nil
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
}
