// Wrong: opens the upstream again if it was Unavailable at once: whether to try again is up to the client.
//
// Fails: TestEveryOtherFailureIsUnavailable
// Says: the client had a day left, the upstream failed with Unavailable, and the upstream was opened 2 times for 1 calls of Watch
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
		last, release := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer release()
		r.audit(last, req.GetTopic(), sent)
	}()
	upstream, err := r.upstream.Watch(ctx, req)
	if err != nil {
		return translate(ctx, err)
	}
	retried := false
	for {
		ev, err := upstream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if status.Code(err) == codes.Unavailable && sent == 0 && !retried && ctx.Err() == nil {
			retried = true
			if upstream, err = r.upstream.Watch(ctx, req); err != nil {
				return translate(ctx, err)
			}
			continue
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

func translate(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if status.Code(err) == codes.NotFound {
		return status.Error(codes.NotFound, "no such topic")
	}
	return status.Error(codes.Unavailable, "the feed is interrupted")
}
