package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server stores what is uploaded. Its handlers run at the same time, each
// upload on a goroutine of its own.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	repo repo
}

// UploadEvents stores each event as it comes and answers with one receipt,
// which counts what this upload stored.
func (s *server) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			// TODO: the client has half-closed. What does it wait for now?
			return nil
		}
		if err != nil {
			return err
		}
		// TODO: the repo may have the event already, and it may fail. Which
		// of the two ends the upload, with which code, and which events
		// count?
		if err := s.repo.Insert(stream.Context(), ev); err != nil {
			return err
		}
	}
}

// upload sends events in order and returns the number on the server's
// receipt, or the server's status if there is none. It waits for as long as
// ctx allows.
func upload(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (int32, error) {
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, err
	}
	for _, ev := range events {
		// TODO: not every error of Send says what went wrong. Who knows it?
		if err := stream.Send(ev); err != nil {
			return 0, err
		}
	}
	// TODO: sent is not stored. Who says what was stored?
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	return int32(len(events)), nil
}
