// Wrong: remembers on the server when anything was sent, and not on the stream.
//
// Fails: TestEachStreamHasItsOwnSilence
// Says: the silent one was sent 0 heartbeats, want one each 25s
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

	mu   sync.Mutex
	last time.Time
}

// Watch sends each event of the topic as it comes, and a heartbeat whenever
// the stream has been silent for s.beat. It ends when the topic has ended,
// with the topic's own ending, or when the client is gone.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	s.sent()
	check := time.NewTicker(50 * time.Millisecond)
	defer check.Stop()
	for {
		var next *feedv1.Event
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			next = ev
		case <-check.C:
			if s.silent() < s.beat {
				continue
			}
			next = heartbeat(req.GetTopic())
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(next); err != nil {
			return err
		}
		s.sent()
	}
}

func (s *server) sent() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
}

func (s *server) silent() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.last)
}
