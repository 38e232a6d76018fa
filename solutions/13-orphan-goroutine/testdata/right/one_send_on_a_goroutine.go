// Right: each Send on a goroutine, one at a time, and the last one joined.
package main

import (
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
	topic := req.GetTopic()
	var inFlight chan error
	defer func() {
		if inFlight != nil {
			<-inFlight
		}
	}()
	silence := time.After(s.beat)
	for {
		events := sub.Events()
		tick := silence
		if inFlight != nil {
			events, tick = nil, nil
		}
		var next *feedv1.Event
		select {
		case err := <-inFlight:
			inFlight = nil
			if err != nil {
				return err
			}
			silence = time.After(s.beat)
			continue
		case ev, ok := <-events:
			if !ok {
				return sub.Err()
			}
			next = ev
		case <-tick:
			next = heartbeat(topic)
		case <-stream.Context().Done():
			return nil
		}
		inFlight = make(chan error, 1)
		go func(c chan<- error) { c <- stream.Send(next) }(inFlight)
	}
}
