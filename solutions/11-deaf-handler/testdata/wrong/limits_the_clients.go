// Wrong: serves 100 clients at a time, and refuses the others.
//
// Fails: TestAThousandClientsLeaveNothing
// Says: 500 clients watch a silent topic, and 100 subscriptions are open, want one for each
package main

import (
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server streams what its broker delivers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker  broker
	clients atomic.Int32
}

// Watch sends each event of the topic as it comes. It ends well when the topic
// has ended, and soon when its stream has. It gives back what it took.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	defer s.clients.Add(-1)
	if s.clients.Add(1) > 100 {
		return status.Error(codes.ResourceExhausted, "too many clients")
	}
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
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
