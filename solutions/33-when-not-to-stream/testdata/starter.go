package main

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// Wait answers with the result of a job when it has ended, and with an empty
// event if it has not ended after hold.
func (s *server) Wait(ctx context.Context, req *feedv1.WatchRequest) (*feedv1.Event, error) {
	// TODO: answer when there is something to say, and in any case in time.
	return nil, status.Error(codes.Unimplemented, "nobody has written Wait")
}

// wait returns the result of a job when it has ended, hours later perhaps.
func wait(ctx context.Context, conn grpc.ClientConnInterface, job string) (*feedv1.Event, error) {
	// TODO: a stream for one event, which no retry repeats and whose silence a
	// proxy ends. Call Wait instead: callWait in main.go does. What if there is no
	// result yet, or the call fails?
	stream, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{Topic: job})
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}
