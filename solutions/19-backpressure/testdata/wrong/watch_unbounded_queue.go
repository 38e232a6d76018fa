// Wrong: a goroutine reads the source into a queue without a bound, and ends well.
//
// Fails: TestWatchTakesNoMoreThanSend
// Says: Watch had taken 300 events from its source
// Says: in between, or had dropped them, want at most 16
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
	source := s.open(req.GetTopic())
	ctx, cancel := context.WithCancel(stream.Context())
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	var (
		mu    sync.Mutex
		queue []*feedv1.Event
		end   error
		more  = make(chan struct{}, 1)
	)
	reader.Go(func() {
		for {
			ev, err := source.Next(ctx)
			mu.Lock()
			if err != nil {
				end = err
			} else {
				queue = append(queue, ev)
			}
			mu.Unlock()
			select {
			case more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	})
	for {
		<-more
		mu.Lock()
		batch, over := queue, end
		queue = nil
		mu.Unlock()
		for _, ev := range batch {
			if err := stream.Send(ev); err != nil {
				return err
			}
		}
		if errors.Is(over, io.EOF) {
			return nil
		}
		if over != nil {
			return over
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
