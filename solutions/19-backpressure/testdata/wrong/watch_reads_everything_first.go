// Wrong: reads the whole topic before it sends.
//
// Fails: TestWatchTakesNoMoreThanSend
// Says: Watch had taken 300 events from its source
package main

import (
	"context"
	"errors"
	"io"

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
	var events []*feedv1.Event
	var end error
	for {
		ev, err := source.Next(stream.Context())
		if err != nil {
			end = err
			break
		}
		events = append(events, ev)
	}
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	if errors.Is(end, io.EOF) {
		return nil
	}
	return end
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
