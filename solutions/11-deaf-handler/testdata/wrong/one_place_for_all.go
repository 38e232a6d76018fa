// Wrong: shares one subscription among all clients of a topic: each event reaches one of them.
//
// Fails: TestAWatcherThatLeavesTakesNoneAlong
// Says: a client came (others that are there: 1), and 100ms later Watch had subscribed 0 times: want one subscription for each client
package main

import (
	"sync"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server streams what its broker delivers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker

	mu     sync.Mutex
	places map[string]*place
}

// Watch sends each event of the topic as it comes. It ends well when the topic
// has ended, and soon when its stream has. It gives back what it took.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	p := s.join(req.GetTopic())
	defer s.leave(req.GetTopic())
	sub := p.sub
	for {
		select {
		case ev, ok := <-sub.C:
			if !ok {
				return nil
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// place is a subscription that clients share.
type place struct {
	sub     *Subscription
	clients int
}

func (s *server) join(topic string) *place {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.places == nil {
		s.places = map[string]*place{}
	}
	p := s.places[topic]
	if p == nil {
		p = &place{sub: s.broker.Subscribe(topic)}
		s.places[topic] = p
	}
	p.clients++
	return p
}

func (s *server) leave(topic string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.places[topic]
	if p.clients--; p.clients == 0 {
		p.sub.Close()
		delete(s.places, topic)
	}
}
