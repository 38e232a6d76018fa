// Right: closes on each way out by hand, and empties the channel after that. A client that left gets nil.
package main

import (
	"fmt"

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
	done := func(err error) error {
		sub.Close()
		for range sub.C {
		}
		return err
	}
	for {
		select {
		case ev, ok := <-sub.C:
			if !ok {
				return done(nil)
			}
			if err := stream.Send(ev); err != nil {
				return done(fmt.Errorf("send: %w", err))
			}
		case <-stream.Context().Done():
			return done(nil)
		}
	}
}
