// Wrong: takes a Send of more than a minute for the end of its client.
//
// Fails: TestWatchTakesNoMoreThanSend
// Says: the client began to read after 24h0m10s
// Says: events and then code ResourceExhausted
package main

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	for {
		ev, err := source.Next(stream.Context())
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		sent := make(chan error, 1)
		go func() { sent <- stream.Send(ev) }()
		select {
		case err := <-sent:
			if err != nil {
				return err
			}
		case <-time.After(time.Minute):
			return status.Error(codes.ResourceExhausted, "too slow")
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
