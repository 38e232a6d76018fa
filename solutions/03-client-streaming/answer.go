package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

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
	var stored int32
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			// The last thing: work after it would delay the receipt, and an
			// error would discard it.
			return stream.SendAndClose(&feedv1.UploadResult{Received: stored})
		}
		if err != nil {
			return err
		}
		switch err := s.repo.Insert(stream.Context(), ev); {
		case errors.Is(err, errDuplicate):
			// Sent again by a client that has no receipt for it. All is
			// well, but this upload did not store it.
		case stream.Context().Err() != nil:
			// Insert was ended because the client is gone. Nobody reads this
			// status, but the server's own logs should not blame the server.
			return status.FromContextError(stream.Context().Err()).Err()
		case err != nil:
			// The receipt is lost, what is stored stays stored, and the
			// client may send everything again.
			return status.Error(codes.Internal, "event not stored")
		default:
			stored++
		}
	}
}

// upload sends events in order and returns the number on the server's
// receipt, or the server's status if there is none. It waits for as long as
// ctx allows.
func upload(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (int32, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream on every way out
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, err
	}
	for _, ev := range events {
		err := stream.Send(ev)
		if errors.Is(err, io.EOF) {
			break // the server has ended the stream; its status comes below
		}
		if err != nil {
			return 0, err // this event cannot be sent, and the stream is over
		}
	}
	// Half-closes and waits for the receipt and the status: only an OK makes
	// the receipt count.
	receipt, err := stream.CloseAndRecv()
	if err != nil {
		return 0, err
	}
	return receipt.GetReceived(), nil
}
