// Right: a helper beats, a lock keeps the Sends apart, and Watch stops the helper and then waits for it. Who got the lock looks at the clock.
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
	last := time.Now()
	send := func(ev *feedv1.Event) error { // mu is held
		defer func() { last = time.Now(); ticker.Reset(s.beat) }()
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
				mu.Lock()
				// While this waited for the lock, an event may have been sent.
				if time.Since(last) >= s.beat {
					send(heartbeat(req.GetTopic()))
				}
				mu.Unlock()
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
			mu.Lock()
			err := send(ev)
			mu.Unlock()
			if err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
