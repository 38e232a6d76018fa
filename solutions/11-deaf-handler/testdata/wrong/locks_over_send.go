// Wrong: holds one lock for all clients over Send, so that a client which does not read stops the others.
//
// Fails: TestASlowClientHoldsUpNoOther
// Says: blocked in Lock at answer.go:
// Says: blocked in Send at answer.go:
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
	mu     sync.Mutex
}

// Watch sends each event of the topic as it comes. It ends well when the topic
// has ended, and soon when its stream has. It gives back what it took.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	for {
		select {
		case ev, ok := <-sub.C:
			if !ok {
				return nil
			}
			s.mu.Lock()
			err := stream.Send(ev)
			s.mu.Unlock()
			if err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
