// Right: a timer's function beats, and Watch waits for it if it could not stop it.
package main

import (
	"context"
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

// Watch uses a timer's callback, joined by a WaitGroup.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	ctx := stream.Context()
	var (
		mu    sync.Mutex
		over  bool
		last  = time.Now()
		timer *time.Timer
		wg    sync.WaitGroup
	)
	send := func(ev *feedv1.Event) error {
		mu.Lock()
		defer mu.Unlock()
		if err := context.Cause(ctx); err != nil {
			return err
		}
		err := stream.Send(ev)
		last = time.Now()
		return err
	}
	wg.Add(1)
	mu.Lock() // the function reads timer
	timer = time.AfterFunc(s.beat, func() {
		mu.Lock()
		defer mu.Unlock()
		if over {
			wg.Done()
			return
		}
		wait := s.beat - time.Since(last)
		if wait <= 0 {
			stream.Send(heartbeat(req.GetTopic()))
			last = time.Now()
			wait = s.beat
		}
		timer.Reset(wait)
	})
	mu.Unlock()
	defer func() {
		mu.Lock()
		over = true
		if timer.Stop() {
			wg.Done()
		}
		mu.Unlock()
		wg.Wait()
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
