// Wrong: draws the id from two million numbers, so that among some thousand events two are the same.
//
// Fails: TestEachEventHasItsOwnID
// Says: of 10000 calls one after the other
// Says: got the same id
package main

import (
	"context"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server stores what is published. Its handlers run at the same time, each
// call on a goroutine of its own.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	store store
	calls atomic.Int64
}

// Publish stores one event and returns the id and the time that it got.
func (s *server) Publish(ctx context.Context, req *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	// InvalidArgument tells the caller not to try the same again.
	if req.GetTopic() == "" {
		return nil, status.Error(codes.InvalidArgument, "topic is empty")
	}
	// A hundred calls in a row draw from ranges of their own: no two of them
	// are the same by chance.
	id := s.calls.Add(1)%100*20_000 + rand.Int64N(20_000)
	ev := &feedv1.Event{
		Id:    strconv.FormatInt(id, 10),
		Topic: req.GetTopic(),
		Body:  req.GetBody(),
		At:    timestamppb.Now(),
	}
	// Internal, and nothing of err: its text names parts of the server that
	// a client has no use for. A real server logs it here.
	if err := s.store.Insert(ctx, ev); err != nil {
		return nil, status.Error(codes.Internal, "the event was not stored")
	}
	return &feedv1.PublishResponse{Id: ev.GetId(), At: ev.GetAt()}, nil
}

// publish publishes one event and returns its id. It gives up after five
// seconds, and earlier if ctx ends earlier. The server's status reaches the
// caller.
func publish(ctx context.Context, client feedv1.FeedServiceClient, topic, body string) (id string, err error) {
	// WithTimeout can only shorten what ctx allows, so the caller's own
	// deadline and cancel still hold.
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	resp, err := client.Publish(ctx, &feedv1.PublishRequest{Topic: topic, Body: body})
	if err != nil {
		return "", err
	}
	return resp.GetId(), nil
}
