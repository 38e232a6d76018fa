// Wrong: takes an event that equals the one before for a repetition.
//
// Fails: TestWatchSendsEachEventAsItComes
// Says: event 2 was published, and the client's Recv has not returned after 100ms
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
	var last string
	for {
		select {
		case ev, ok := <-sub.C:
			if !ok {
				return nil
			}
			if ev.GetId() != "" && ev.GetId() == last {
				continue
			}
			last = ev.GetId()
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
