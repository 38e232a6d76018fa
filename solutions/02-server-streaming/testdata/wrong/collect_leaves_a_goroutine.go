// Wrong: receives on a goroutine that waits for ever to hand over the error that nobody takes.
//
// Fails: TestCollectEndsWhenItsCallerCancels
// Says: a goroutine that was started at answer.go:
// Says: blocked sending to a channel at answer.go:
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
	type result struct {
		ev  *feedv1.Event
		err error
	}
	results := make(chan result)
	go func() {
		for {
			ev, err := stream.Recv()
			results <- result{ev, err}
			if err != nil {
				return
			}
		}
	}()
	done := ctx.Done()
	var events []*feedv1.Event
	for {
		select {
		case <-done:
			return events, ctx.Err()
		default:
		}
		select {
		case <-done:
			return events, ctx.Err()
		case r := <-results:
			if errors.Is(r.err, io.EOF) {
				return events, nil
			}
			if r.err != nil {
				return events, r.err
			}
			events = append(events, r.ev)
		}
	}
}
