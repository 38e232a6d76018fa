package main

import (
	"context"

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
	// TODO: a subscription holds a place at the broker. Who gives it back?
	sub := s.broker.Subscribe(req.GetTopic())
	for {
		// TODO: what does this line yield when the topic has ended, and how
		// does the client learn how it ended?
		// TODO: how long does it wait when the client is gone?
		ev := <-sub.Events()
		if err := stream.Send(ev); err != nil {
			return err
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
		// TODO: one of the errors of Recv is no failure. Which?
		ev, err := stream.Recv()
		if err != nil {
			return events, err
		}
		events = append(events, ev)
	}
}
