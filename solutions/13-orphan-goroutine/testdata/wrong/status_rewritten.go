// Wrong: makes a status of its own with the topic's code.
//
// Fails: TestWatchEndsAsItsTopicFails
// Says: the topic failed with FailedPrecondition, "the topic moved", after one event
// Says: want that event and that status
package main

import (
	"google.golang.org/grpc/status"
	"time"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server streams what its broker delivers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker
	beat   time.Duration // how long a stream may be silent
}

func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	t := time.NewTimer(s.beat)
	defer t.Stop()
	for {
		next := heartbeat(req.GetTopic())
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				if err := sub.Err(); err != nil {
					return status.Error(status.Code(err), err.Error())
				}
				return nil
			}
			next = ev
		case <-t.C:

		case <-stream.Context().Done():
			return stream.Context().Err()
		}

		if err := stream.Send(next); err != nil {
			return err
		}
		t.Reset(s.beat)
	}
}
