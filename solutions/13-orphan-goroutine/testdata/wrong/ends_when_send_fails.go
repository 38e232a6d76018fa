// Wrong: the helper ends when its Send fails, which is after Watch has returned.
//
// Fails: TestWatchSendsEventsInTimeAndEndsWithTheTopic
// Says: Watch has returned, and
// Says: later a Send began at answer.go:
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
	var mu sync.Mutex
	ticker := time.NewTicker(s.beat)
	send := func(ev *feedv1.Event) error {
		mu.Lock()
		defer mu.Unlock()
		defer ticker.Reset(s.beat)
		return stream.Send(ev)
	}
	go func() {
		for range ticker.C {
			if err := send(heartbeat(req.GetTopic())); err != nil {
				return
			}
		}
	}()
	for {
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			if err := send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
