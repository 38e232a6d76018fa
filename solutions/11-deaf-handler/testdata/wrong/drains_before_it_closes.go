// Wrong: empties its channel before it closes, so that no publisher is stuck: it is empty when there are no more publishers.
//
// Fails: TestWatchEndsWhenItsClientCancels
// Says: the client of a silent topic cancelled, and 100ms later Watch still ran: blocked receiving from a channel at answer.go:
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
	defer func() {
		for range sub.C {
		}
		sub.Close()
	}()
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
		}
	}
}
