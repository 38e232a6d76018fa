// Wrong: takes events into a queue of 1,024 and throws away what does not fit.
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
	ctx := stream.Context()
	queue := make(chan *feedv1.Event, 1024)
	go func() {
		defer sub.Close()
		defer close(queue)
		for {
			select {
			case ev, ok := <-sub.C:
				if !ok {
					return
				}
				select {
				case queue <- ev:
				default:
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	for ev := range queue {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return ctx.Err()
}
