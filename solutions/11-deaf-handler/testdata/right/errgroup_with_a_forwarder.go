// Right: an errgroup joins a forwarder and a sender, and either ends the other.
package main

import (
	"golang.org/x/sync/errgroup"
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
	both, ctx := errgroup.WithContext(stream.Context())
	both.Go(func() error {
		defer close(events)
		for {
			select {
			case ev, ok := <-sub.C:
				if !ok {
					return nil
				}
				select {
				case events <- ev:
				case <-ctx.Done():
					return ctx.Err()
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	both.Go(func() error {
		for ev := range events {
			if err := stream.Send(ev); err != nil {
				return err
			}
		}
		return nil
	})
	return both.Wait()
}
