// Wrong: waits for a forwarder that waits for the subscription, which it closes afterwards.
//
// Fails: TestWatchEndsWhenItsClientCancels
// Says: the client of a silent topic cancelled, and 100ms later Watch still ran:
// Says: blocked in Wait at answer.go:
package main

import (
	"sync"

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
	var wg sync.WaitGroup
	defer wg.Wait()
	events := make(chan *feedv1.Event)
	wg.Go(func() {
		defer close(events)
		for ev := range sub.C {
			select {
			case events <- ev:
			case <-stream.Context().Done():
				return
			}
		}
	})
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
