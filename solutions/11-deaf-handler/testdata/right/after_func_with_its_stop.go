// Right: stop says whether AfterFunc has closed, or will.
package main

import (
	"context"

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
	stop := context.AfterFunc(stream.Context(), sub.Close)
	defer func() {
		if stop() {
			sub.Close()
		}
	}()
	for ev := range sub.C {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return nil
}
