// Wrong: helper and loop send without asking who else does.
//
// Fails: TestOneSendAtATime
// Says: two Sends ran at one time: the one at answer.go:
package main

import (
	"sync"
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

// Watch sends each event of the topic as it comes, and a heartbeat whenever
// the stream has been silent for s.beat. It ends when the topic has ended,
// with the topic's own ending, or when the client is gone.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	ticker := time.NewTicker(s.beat)
	defer ticker.Stop()
	var helper sync.WaitGroup
	stop := make(chan struct{})
	defer helper.Wait()
	defer close(stop)
	helper.Go(func() {
		for {
			select {
			case <-ticker.C:
				stream.Send(heartbeat(req.GetTopic()))
			case <-stop:
				return
			}
		}
	})
	for {
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
			ticker.Reset(s.beat)
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
