// Wrong: takes the half-close, which comes with the request, for the client's leaving.
//
// Fails: TestWatchSendsEachEventAsItComes
// Says: event 1 was published, and the client's Recv returned EOF instead of it
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
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		stream.RecvMsg(new(feedv1.WatchRequest))
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
		case <-gone:
			return nil
		}
	}
}
