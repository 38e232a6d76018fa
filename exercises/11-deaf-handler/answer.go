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
	// TODO: the client may leave at any time. How long does this line wait then?
	for ev := range sub.C {
		if err := stream.Context().Err(); err != nil {
			sub.Close()
			return err
		}
		if err := stream.Send(ev); err != nil {
			sub.Close()
			return err
		}
	}
	// TODO: each way out of this function has to give the place back, once.
	return nil
}
