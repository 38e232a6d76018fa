// Wrong: returns nil when the client has left: the stream was not complete.
//
// Fails: TestWatchEndsWhenItsClientCancels
// Says: the client of a silent topic cancelled, and Watch returned code OK
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
	for {
		ev, err := upstream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return translate(ctx, err)
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
		sent++
	}
}

// translate says what an error of the upstream means to the client.
func translate(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case status.Code(err) == codes.NotFound:
		return status.Error(codes.NotFound, "no such topic")
	}
	return status.Error(codes.Unavailable, "the feed is interrupted")
}
