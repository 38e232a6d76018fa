// Right: has a cancel of its own on the client's context, and audits when the upstream is over.
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
	ctx := stream.Context()
	sent, err := r.pass(ctx, req, stream)
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 4*time.Second)
	defer cancel()
	r.audit(last, req.GetTopic(), sent)
	return err
}

func (r *relay) pass(ctx context.Context, req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) (sent int, err error) {
	up, cancel := context.WithCancel(ctx)
	defer cancel()
	upstream, err := r.upstream.Watch(up, req)
	for err == nil {
		var ev *feedv1.Event
		if ev, err = upstream.Recv(); err == nil {
			if err := stream.Send(ev); err != nil {
				return sent, err
			}
			sent++
		}
	}
	switch {
	case errors.Is(err, io.EOF):
		return sent, nil
	case ctx.Err() != nil:
		return sent, ctx.Err()
	case status.Code(err) == codes.NotFound:
		return sent, status.Error(codes.NotFound, status.Convert(err).Message())
	}
	return sent, status.Errorf(codes.Unavailable, "upstream: %v", err)
}
