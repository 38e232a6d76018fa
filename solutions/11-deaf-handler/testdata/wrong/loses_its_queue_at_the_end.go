// Wrong: returns when the topic has ended, and forgets what is still in its queue.
//
// Fails: TestWatchLosesNothingForASlowClient
// Says: 2000 events were published to a client that read nothing for 10m, and then all: events are missing or out of order
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
	q := make(chan *feedv1.Event, 100000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ev := range sub.C {
			q <- ev
		}
	}()
	for {
		select {
		case ev := <-q:
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-ended: // what is still in q is lost
			return nil
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
