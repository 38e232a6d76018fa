// Wrong: two goroutines read the source.
//
// Fails: TestWatchSendsEventsAsTheyCome
// Says: Watch asked its source for an event while it waited for another one
package main

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"
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
	source := s.open(req.GetTopic())
	g, ctx := errgroup.WithContext(stream.Context())
	events := make(chan *feedv1.Event)
	for range 2 {
		g.Go(func() error {
			for {
				ev, err := source.Next(ctx)
				if err != nil {
					return err
				}
				select {
				case events <- ev:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		})
	}
	g.Go(func() error {
		for {
			select {
			case ev := <-events:
				if err := stream.Send(ev); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if err := g.Wait(); !errors.Is(err, io.EOF) {
		return err
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
		return 0, err
	}
	for ev, ok := next(); ok; ev, ok = next() {
		if stream.Send(ev) != nil {
			break // the stream has ended; CloseAndRecv tells how
		}
	}
	result, err := stream.CloseAndRecv()
	return result.GetReceived(), err
}
