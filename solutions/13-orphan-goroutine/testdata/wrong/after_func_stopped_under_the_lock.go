// Wrong: stops the timer under the lock. A function that waits for the lock sends when it gets it.
//
// Fails: TestALongSendMakesNoHeartbeatEarly
// Says: a heartbeat was sent at answer.go:
// Says: had begun, want 15s of silence
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

func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	// Joined by the lock: nobody sends while Watch holds it, and then the
	// timer is stopped. But a callback that waits for the lock sends after it.
	var mu sync.Mutex
	var t *time.Timer
	send := func(ev *feedv1.Event) error {
		mu.Lock()
		defer mu.Unlock()
		defer t.Reset(s.beat)
		return stream.Send(ev)
	}
	mu.Lock()
	t = time.AfterFunc(s.beat, func() { send(heartbeat(req.GetTopic())) })
	mu.Unlock()
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		t.Stop()
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
