// Wrong: keeps a heartbeat for the loop to send, and does not take it back when an event is sent first.
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
	// The heart offers a heartbeat to the only sender.
	beats := make(chan struct{}, 1)
	done := make(chan struct{})
	var wg sync.WaitGroup
	t := time.NewTimer(s.beat)
	wg.Go(func() {
		for {
			select {
			case <-t.C:
				select {
				case beats <- struct{}{}:
				default:
				}
				t.Reset(s.beat)
			case <-done:
				return
			}
		}
	})
	defer wg.Wait()
	defer close(done)
	defer t.Stop()
	for {
		next := heartbeat(req.GetTopic())
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				return sub.Err()
			}
			next = ev
		case <-beats:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		t.Reset(s.beat)
		if err := stream.Send(next); err != nil {
			return err
		}
	}
}
