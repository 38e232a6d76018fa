// Wrong: leaves a heartbeat out while something is being sent, and does not start the silence anew after a heartbeat.
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
	var mu sync.Mutex
	t := time.NewTicker(s.beat)
	defer t.Stop()
	send := func(ev *feedv1.Event) error {
		mu.Lock()
		defer mu.Unlock()
		t.Reset(s.beat)
		return stream.Send(ev)
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-t.C:
				if mu.TryLock() { // else something is being sent
					stream.Send(heartbeat(req.GetTopic()))
					mu.Unlock()
				}
			case <-done:
				return
			}
		}
	})
	defer wg.Wait()
	defer close(done)
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
