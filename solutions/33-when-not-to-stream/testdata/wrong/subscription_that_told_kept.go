// Wrong: takes a subscription that has told for closed.
//
// Fails: TestTheServerAnswersWhenTheJobEnds
// Says: subscriptions are not closed, want none
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
	told := false
	defer func() {
		if !told {
			sub.Close()
		}
	}()
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
			told = true
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
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		switch status.Code(err) {
		case codes.OK:
			if ev.GetId() != "" {
				return ev, nil
			}
		case codes.Unavailable, codes.DeadlineExceeded:
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
