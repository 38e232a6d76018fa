package main

import (
	"context"
	"errors"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server stores what is published. Its handlers run at the same time, each
// call on a goroutine of its own.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	store store
}

// Publish stores one event and returns the id and the time that it got.
func (s *server) Publish(ctx context.Context, req *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	// TODO: an empty topic is the caller's mistake. Which code says so?
	if req.GetTopic() == "" {
		return nil, errors.New("topic is empty")
	}
	// TODO: each event gets an id that no other event has, and the time.
	ev := &feedv1.Event{
		Id:    "1",
		Topic: req.GetTopic(),
		Body:  req.GetBody(),
	}
	// TODO: when the store fails it is the server's fault. Which code says
	// so, and how much of the store's error is the client's business?
	if err := s.store.Insert(ctx, ev); err != nil {
		return nil, err
	}
	return &feedv1.PublishResponse{Id: ev.GetId(), At: ev.GetAt()}, nil
}

// publish publishes one event and returns its id. It gives up after five
// seconds, and earlier if ctx ends earlier. The server's status reaches the
// caller.
func publish(ctx context.Context, client feedv1.FeedServiceClient, topic, body string) (id string, err error) {
	// TODO: bound the wait.
	resp, err := client.Publish(context.Background(), &feedv1.PublishRequest{Topic: topic, Body: body})
	if err != nil {
		return "", err
	}
	return resp.GetId(), nil
}
