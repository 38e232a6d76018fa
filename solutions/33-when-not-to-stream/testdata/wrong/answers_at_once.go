// Wrong: does not hold a call: the client polls.
//
// Fails: TestTheServerAnswersWhenTheJobEnds
// Says: with an empty event, want Event{id:"7"
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

// Wait answers with the result of a job when it has ended, and with an empty
// event if it has not ended after hold.
func (s *server) Wait(ctx context.Context, req *feedv1.WatchRequest) (*feedv1.Event, error) {
	// First subscribe, then look: of what ends in between one of the two tells.
	sub := s.jobs.Subscribe(req.GetTopic())
	defer sub.Close()
	over := time.NewTimer(0)
	defer over.Stop()
	for {
		result, err := s.jobs.Result(req.GetTopic())
		if errors.Is(err, errNoJob) {
			return nil, status.Error(codes.NotFound, err.Error())
		}
		if err != nil || result != nil {
			return result, err
		}
		select {
		case <-sub.C:
		case <-over.C:
			return new(feedv1.Event), nil
		case <-ctx.Done(): // nobody would get the answer
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

// within is what a call may take: hold, and what the network needs.
const within = hold + 10*time.Second

// wait returns the result of a job when it has ended, hours later perhaps.
func wait(ctx context.Context, conn grpc.ClientConnInterface, job string) (*feedv1.Event, error) {
	for {
		call, cancel := context.WithTimeout(ctx, within)
		// A server that answers or fails at once is not asked more than once a second.
		pause := time.After(time.Second)
		ev, err := callWait(call, conn, &feedv1.WatchRequest{Topic: job})
		cancel()
		switch code := status.Code(err); {
		case err == nil && ev.GetId() != "":
			return ev, nil
		case ctx.Err() != nil:
			return nil, status.FromContextError(ctx.Err()).Err()
		case code != codes.OK && code != codes.Unavailable && code != codes.DeadlineExceeded:
			return nil, err // the others may be better the next time: the result is kept
		}
		select {
		case <-pause:
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}
