// Wrong: one lock for all streams: a client that does not read stops the others.
//
// Fails: TestEachStreamHasItsOwnSilence
// Says: while a Send of one stream ran, the other stream had an event to send and waited for a lock
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

var sending sync.Mutex // one Send at a time

func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
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

		sending.Lock()
		err := stream.Send(next)
		sending.Unlock()
		if err != nil {
			return err
		}
		t.Reset(s.beat)
	}
}
