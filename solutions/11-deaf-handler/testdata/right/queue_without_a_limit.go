// Right: a goroutine queues what the client does not read yet.
package main

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server streams what its broker delivers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker
}

// Watch sends each event of the topic as it comes. It ends well when the topic
// has ended, and soon when its stream has. It gives back what it took.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	ctx, cancel := context.WithCancel(stream.Context())
	events := make(chan *feedv1.Event)
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(events)
		defer sub.Close()
		var queue []*feedv1.Event
		in := sub.C
		for in != nil || len(queue) > 0 {
			var out chan *feedv1.Event
			var next *feedv1.Event
			if len(queue) > 0 {
				out, next = events, queue[0]
			}
			select {
			case ev, ok := <-in:
				if !ok {
					in = nil
					continue
				}
				queue = append(queue, ev)
			case out <- next:
				queue = queue[1:]
			case <-ctx.Done():
				return
			}
		}
	})
	defer wg.Wait()
	defer cancel()
	for ev := range events {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return ctx.Err()
}
