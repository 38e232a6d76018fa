// Right: sends what iterators give, and wraps errors.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server streams what its sources give.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	open func(topic string) source
}

// Watch sends the events of a topic at the pace of its client, and ends as
// the topic ends.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	for ev, err := range events(stream.Context(), s.open(req.GetTopic())) {
		if err != nil {
			return err
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return nil
}

// uploadFrom sends what next gives, at the pace of the server, until next says
// false. It returns the server's count.
func uploadFrom(ctx context.Context, client feedv1.FeedServiceClient, next func() (*feedv1.Event, bool)) (int32, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, fmt.Errorf("open: %w", err)
	}
	for {
		ev, ok := next()
		if !ok {
			break
		}
		if err := stream.Send(ev); err != nil {
			if !errors.Is(err, io.EOF) {
				return 0, fmt.Errorf("send: %w", err)
			}
			break
		}
	}
	result, err := stream.CloseAndRecv()
	if err != nil {
		return 0, fmt.Errorf("receipt: %w", err)
	}
	return result.GetReceived(), nil
}

// events gives what a source gives, up to its end or an error.
func events(ctx context.Context, src source) iter.Seq2[*feedv1.Event, error] {
	return func(yield func(*feedv1.Event, error) bool) {
		for {
			ev, err := src.Next(ctx)
			if errors.Is(err, io.EOF) || !yield(ev, err) || err != nil {
				return
			}
		}
	}
}
