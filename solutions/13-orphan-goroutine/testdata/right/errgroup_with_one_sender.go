// Right: one goroutine reads the topic, one sends, an errgroup joins them and carries the error.
package main

import (
	"time"

	"golang.org/x/sync/errgroup"
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
	next := make(chan *feedv1.Event)
	both, ctx := errgroup.WithContext(stream.Context())
	both.Go(func() error {
		defer close(next)
		for {
			select {
			case ev, ok := <-sub.Events():
				if !ok {
					return nil
				}
				select {
				case next <- ev:
				case <-ctx.Done():
					return ctx.Err()
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	both.Go(func() error {
		silence := time.NewTimer(s.beat)
		defer silence.Stop()
		for {
			select {
			case ev, ok := <-next:
				if !ok {
					return nil
				}
				if err := stream.Send(ev); err != nil {
					return err
				}
			case <-silence.C:
				if err := stream.Send(heartbeat(req.GetTopic())); err != nil {
					return err
				}
			}
			silence.Reset(s.beat)
		}
	})
	if err := both.Wait(); err != nil {
		return err
	}
	return sub.Err()
}
