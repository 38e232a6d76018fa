// Wrong: a lock and a helper that is joined. A tick that came while an event was being sent is a heartbeat right after it.
//
// Fails: TestALongSendMakesNoHeartbeatEarly
// Says: a heartbeat was sent at answer.go:
// Says: 1ns after the Send before had begun, want 15s of silence
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
	stop := make(chan struct{})
	var done sync.WaitGroup
	defer done.Wait()
	defer close(stop)
	done.Go(func() {
		for {
			select {
			case <-ticker.C:
				send(heartbeat(req.GetTopic()))
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
			if err := send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
