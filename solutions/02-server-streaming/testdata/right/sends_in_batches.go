// Right: sends what has come five times a second, and what is left at the end.
package main

import (
	"context"
	"errors"
	"io"
	"time"

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
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var batch []*feedv1.Event
	flush := func() error {
		for _, ev := range batch {
			if err := stream.Send(ev); err != nil {
				return err
			}
		}
		batch = batch[:0]
		return nil
	}
	for {
		select {
		case <-tick.C:
			if err := flush(); err != nil {
				return err
			}
		case ev, ok := <-sub.Events():
			if !ok {
				if err := flush(); err != nil {
					return err
				}
				return sub.Err()
			}
			if batch = append(batch, ev); len(batch) == 64 {
				if err := flush(); err != nil {
					return err
				}
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
	var events []*feedv1.Event
	for {
		// Every way out of this loop is an error from Recv, and that is what
		// releases the stream.
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events, nil
		}
		if err != nil {
			return events, err
		}
		events = append(events, ev)
	}
}
