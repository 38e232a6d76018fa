// Right: the events come over a goroutine that ends with the handler, errors are wrapped with %w, and nothing is returned beside an error.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

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
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	ctx, cancel := context.WithCancel(stream.Context())
	events := make(chan *feedv1.Event)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		defer close(events)
		for {
			select {
			case ev, ok := <-sub.Events():
				if !ok {
					return
				}
				select {
				case events <- ev:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	for ev := range events {
		if err := stream.Send(ev); err != nil {
			return fmt.Errorf("send: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := sub.Err(); err != nil {
		return fmt.Errorf("topic: %w", err)
	}
	return nil
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
			return nil, fmt.Errorf("watch %q: %w", topic, err)
		}
		events = append(events, ev)
	}
}
