// Right: receives in a goroutine, and waits for it before the audit.
package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// relay passes on the events of its upstream.
type relay struct {
	feedv1.UnimplementedFeedServiceServer
	upstream feedv1.FeedServiceClient
	audit    audit
}

// Watch passes on the topic until either stream is over, and then writes down
// how many events the client got.
func (r *relay) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	ctx, sent := stream.Context(), 0
	var receiver sync.WaitGroup
	defer func() {
		receiver.Wait()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		r.audit(last, req.GetTopic(), sent)
	}()
	up, stop := context.WithCancel(ctx)
	defer stop() // runs before the wait
	upstream, err := r.upstream.Watch(up, req)
	if err != nil {
		return translate(ctx, err)
	}
	events, failed := make(chan *feedv1.Event), make(chan error, 1)
	receiver.Go(func() {
		for {
			ev, err := upstream.Recv()
			if err != nil {
				failed <- err
				close(events)
				return
			}
			select {
			case events <- ev:
			case <-up.Done():
				return
			}
		}
	})
	for {
		select {
		case ev, ok := <-events:
			if !ok {
				if err := <-failed; !errors.Is(err, io.EOF) {
					return translate(ctx, err)
				}
				return nil
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
			sent++
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// translate says what an error of the upstream means to the client.
func translate(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case status.Code(err) == codes.NotFound:
		return status.Error(codes.NotFound, "no such topic")
	}
	return status.Error(codes.Unavailable, "the feed is interrupted")
}
