// Right: leaves the upstream 50 ms before the client's deadline.
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

type relay struct {
	feedv1.UnimplementedFeedServiceServer
	upstream feedv1.FeedServiceClient
	audit    audit
}

type result struct {
	ev  *feedv1.Event
	err error
}

// Watch leaves the upstream 50 ms before the client's deadline, so that its
// own answer can still arrive.
func (r *relay) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) (err error) {
	ctx := stream.Context()
	var sent int
	defer func() {
		last, release := context.WithTimeoutCause(context.WithoutCancel(ctx), 4900*time.Millisecond, errors.New("audit too slow"))
		r.audit(last, req.GetTopic(), sent)
		release()
	}()

	uctx, cancel := context.WithCancel(ctx)
	if d, ok := ctx.Deadline(); ok {
		uctx, cancel = context.WithDeadline(ctx, d.Add(-50*time.Millisecond))
	}
	defer cancel()

	upstream, err := r.upstream.Watch(uctx, req)
	if err != nil {
		return r.explain(uctx, err)
	}
	results := make(chan result)
	go func() {
		defer close(results)
		for {
			ev, err := upstream.Recv()
			select {
			case results <- result{ev, err}:
			case <-uctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	defer func() {
		cancel()
		for range results {
		}
	}()
	for {
		select {
		case <-uctx.Done():
			return uctx.Err() // Canceled or DeadlineExceeded: the client's time is over
		case res, ok := <-results:
			switch {
			case !ok:
				return uctx.Err()
			case res.err == io.EOF:
				return nil
			case res.err != nil:
				return r.explain(uctx, res.err)
			}
			if err := stream.Send(res.ev); err != nil {
				return err
			}
			sent++
		}
	}
}

func (r *relay) explain(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if s, ok := status.FromError(err); ok && s.Code() == codes.NotFound {
		return err
	}
	return status.Error(codes.Unavailable, codes.Unavailable.String())
}
