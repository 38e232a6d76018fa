// Wrong: receives on a goroutine, and a select that finds both the last events and the end ready may take the end.
//
// Fails: TestCollectLosesNothingOfABurst
// Says: the server sent a burst of events and ended well, and collect returned fewer events and no error
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server streams what its broker delivers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker
}

// Watch sends each event of the topic as it comes. It ends when the topic
// has ended, with the topic's own ending, or when the client is gone.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	// The handler took the place, so it gives it back, however it ends.
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	for {
		select {
		case ev, ok := <-sub.Events():
			if !ok {
				// nil, and the client's Recv says io.EOF; or the status that
				// it gets instead.
				return sub.Err()
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			// A silent topic has no Send that could fail.
			return stream.Context().Err()
		}
	}
}

// collect returns all events of a topic, in order, once the topic has ended.
// If it cannot have all of them it returns an error.
func collect(ctx context.Context, client feedv1.FeedServiceClient, topic string) ([]*feedv1.Event, error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	received := make(chan *feedv1.Event, 64)
	ended := make(chan error, 1)
	go func() {
		for {
			ev, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			received <- ev
		}
	}()
	var events []*feedv1.Event
	for {
		select {
		case ev := <-received:
			events = append(events, ev)
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return events, nil
			}
			return events, err
		}
	}
}
