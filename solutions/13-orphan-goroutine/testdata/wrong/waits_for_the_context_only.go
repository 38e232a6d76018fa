// Wrong: the helper ends with the stream's context, which ends with Watch: it is stopped, and not joined.
//
// Fails: TestWatchReturnsAfterItsLastSend
// Says: Watch returned, and its Send at answer.go:
// Says: was still running
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
	defer ticker.Stop()
	send := func(ev *feedv1.Event) error {
		mu.Lock()
		defer mu.Unlock()
		defer ticker.Reset(s.beat)
		return stream.Send(ev)
	}
	go func() {
		for {
			select {
			case <-ticker.C:
				send(heartbeat(req.GetTopic()))
			case <-stream.Context().Done():
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
