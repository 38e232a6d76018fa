// Right: returns a DeadlineExceeded that is not of its own deadline.
package main

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func (s *server) Wait(ctx context.Context, req *feedv1.WatchRequest) (*feedv1.Event, error) {
	sub := s.jobs.Subscribe(req.GetTopic())
	defer sub.Close()
	over := time.NewTimer(hold)
	defer over.Stop()
	for {
		result, err := s.jobs.Result(req.GetTopic())
		if errors.Is(err, errNoJob) {
			return nil, status.Error(codes.NotFound, err.Error())
		}
		if err != nil {
			return nil, err
		}
		if result != nil {
			return result, nil
		}
		select {
		case <-sub.C:
		case <-over.C:
			return new(feedv1.Event), nil
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

func wait(ctx context.Context, conn grpc.ClientConnInterface, job string) (*feedv1.Event, error) {
	for {
		call, cancel := context.WithTimeout(ctx, 30*time.Second)
		began := time.Now()
		ev, err := callWait(call, conn, &feedv1.WatchRequest{Topic: job})
		defer cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		switch code := status.Code(err); {
		case err == nil:
			if ev.GetId() != "" {
				return ev, nil
			}
		case code == codes.Unavailable || call.Err() != nil && code == codes.DeadlineExceeded:
		default:
			return nil, err
		}
		select {
		case <-time.After(time.Second - time.Since(began)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
