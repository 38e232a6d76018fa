// Right: queues what a slow client has not read yet, and sends it before the status.
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
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		r.audit(last, req.GetTopic(), sent)
	}()
	upstream, err := r.upstream.Watch(ctx, req)
	if err != nil {
		return translate(ctx, err)
	}
	var mu sync.Mutex
	var queue []*feedv1.Event
	var over error
	more := make(chan struct{}, 1)
	go func() { // ends with the stream, at the latest
		for {
			ev, err := upstream.Recv()
			mu.Lock()
			if over = err; err == nil {
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
	}()
	for {
		mu.Lock()
		events, end := queue, over
		queue = nil
		mu.Unlock()
		for _, ev := range events {
			if err := stream.Send(ev); err != nil {
				return err
			}
			sent++
		}
		if errors.Is(end, io.EOF) {
			return nil
		}
		if end != nil {
			return translate(ctx, end)
		}
		<-more
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
