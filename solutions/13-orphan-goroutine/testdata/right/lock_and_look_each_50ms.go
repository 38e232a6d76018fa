// Right: a helper takes the lock each 50 ms and looks how long ago something was sent.
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
	last := time.Now()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-t.C:
			case <-done:
				return
			}
			mu.Lock()
			if time.Since(last) >= s.beat {
				stream.Send(heartbeat(req.GetTopic()))
				last = time.Now()
			}
			mu.Unlock()
		}
	})
	defer wg.Wait()
	defer close(done)
	send := func(ev *feedv1.Event) error {
		mu.Lock()
		defer mu.Unlock()
		defer func() { last = time.Now() }()
		return stream.Send(ev)
	}
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
