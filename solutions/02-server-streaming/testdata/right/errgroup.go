// Right: an errgroup on both sides, and the client cancels what it leaves.
package main

import (
	"context"
	"io"

	"golang.org/x/sync/errgroup"
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
	g, ctx := errgroup.WithContext(stream.Context())
	events := make(chan *feedv1.Event, 1)
	g.Go(func() error {
		defer close(events)
		for {
			select {
			case ev, ok := <-sub.Events():
				if !ok {
					return nil
				}
				select {
				case events <- ev:
				case <-ctx.Done():
					return ctx.Err()
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	g.Go(func() error {
		for ev := range events {
			if err := stream.Send(ev); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return sub.Err()
}

// collect returns all events of a topic, in order, once the topic has ended.
// If it cannot have all of them it returns an error.
func collect(ctx context.Context, client feedv1.FeedServiceClient, topic string) ([]*feedv1.Event, error) {
	g, ctx := errgroup.WithContext(ctx)
	received := make(chan *feedv1.Event)
	g.Go(func() error {
		defer close(received)
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		if err != nil {
			return err
		}
		for {
			ev, err := stream.Recv()
			if err == io.EOF {
				return nil
			}
			if err != nil {
				return err
			}
			received <- ev // collect reads until this is closed
		}
	})
	var events []*feedv1.Event
	for ev := range received {
		events = append(events, ev)
	}
	return events, g.Wait()
}
