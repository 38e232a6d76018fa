// Wrong: goes on putting heartbeats into the queue while a Send lasts.
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
	// Events and heartbeats go through one queue to one sender.
	queue := make(chan *feedv1.Event, 1024)
	var wg sync.WaitGroup
	wg.Go(func() {
		for ev := range queue {
			stream.Send(ev)
		}
	})
	defer wg.Wait()
	defer close(queue)
	t := time.NewTimer(s.beat)
	defer t.Stop()
	for {
		next := heartbeat(req.GetTopic())
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			next = ev
		case <-t.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		queue <- next
		t.Reset(s.beat)
	}
}
