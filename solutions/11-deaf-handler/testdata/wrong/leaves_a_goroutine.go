// Wrong: closes, and leaves a goroutine that holds the last event.
//
// Fails: TestWatchEndsWhileSendWaits
// Says: a client that read nothing cancelled, and a second later a goroutine that was started at answer.go:
// Says: blocked sending to a channel at answer.go:
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
	events := make(chan *feedv1.Event)
	go func() {
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
