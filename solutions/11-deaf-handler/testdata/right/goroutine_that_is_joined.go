// Right: a goroutine closes, and Watch waits for it before it returns.
package main

import (
	"errors"
	"google.golang.org/protobuf/proto"

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
	quit, closed := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(closed)
		select {
		case <-stream.Context().Done():
		case <-quit:
		}
		sub.Close()
	}()
	defer func() { close(quit); <-closed }()
	for {
		ev, ok := <-sub.C
		if !ok {
			return nil
		}
		clone := proto.Clone(ev).(*feedv1.Event)
		if err := stream.SendMsg(clone); err != nil {
			return errors.Join(err, stream.Context().Err())
		}
	}
}
