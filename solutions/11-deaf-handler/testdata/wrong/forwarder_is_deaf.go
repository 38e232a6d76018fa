// Wrong: listens itself, and starts a forwarder that does not.
//
// Fails: TestWatchEndsWhenItsClientCancels
// Says: the client of a silent topic cancelled, and 100ms later Watch had returned, but its subscription was open
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
	events := make(chan *feedv1.Event)
	go func() {
		defer sub.Close()
		defer close(events)
		for ev := range sub.C {
			events <- ev
		}
	}()
	for {
		select {
		case ev, ok := <-events:
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
