// Right: a goroutine reads the source and hands over one event at a time; errors go the same way.
package main

import (
	"context"
	"errors"
	"io"
	"sync"

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
	type item struct {
		ev  *feedv1.Event
		err error
	}
	source := s.open(req.GetTopic())
	ctx, cancel := context.WithCancel(stream.Context())
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	items := make(chan item)
	reader.Go(func() {
		for {
			ev, err := source.Next(ctx)
			select {
			case items <- item{ev, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	for {
		select {
		case it := <-items:
			if errors.Is(it.err, io.EOF) {
				return nil
			}
			if it.err != nil {
				return it.err
			}
			if err := stream.Send(it.ev); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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
