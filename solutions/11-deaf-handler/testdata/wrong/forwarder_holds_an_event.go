// Wrong: leaves the closing to a forwarder, which listens while it receives and not while it hands over.
//
// Fails: TestWatchEndsWhileSendWaits
// Says: a client that read nothing cancelled, and 100ms later Watch had returned, but its subscription was open; an hour later a publisher still waited for it
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
	events := make(chan *feedv1.Event)
	go func() {
		defer sub.Close()
		defer close(events)
		for {
			select {
			case ev, ok := <-sub.C:
				if !ok {
					return
				}
				events <- ev
			case <-ctx.Done():
				return
			}
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
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
