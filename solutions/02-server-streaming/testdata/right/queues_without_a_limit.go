// Right: a queue without a limit stands between the broker and a slow client; chapter 19 has what that costs.
package main

import (
	"context"
	"errors"
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
	// The handler took the place, so it gives it back, however it ends.
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	ctx, cancel := context.WithCancel(stream.Context())
	var mu sync.Mutex
	var queue []*feedv1.Event
	ended := false
	wake := make(chan struct{}, 1)
	var taker sync.WaitGroup
	defer taker.Wait()
	defer cancel()
	taker.Go(func() {
		for {
			select {
			case ev, ok := <-sub.Events():
				mu.Lock()
				if ok {
					queue = append(queue, ev)
				}
				ended = !ok
				mu.Unlock()
				select {
				case wake <- struct{}{}:
				default: // it is awake
				}
				if !ok {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		mu.Lock()
		batch, last := queue, ended
		queue = nil
		mu.Unlock()
		for _, ev := range batch {
			if err := stream.Send(ev); err != nil {
				return err
			}
		}
		if last {
			return sub.Err()
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
