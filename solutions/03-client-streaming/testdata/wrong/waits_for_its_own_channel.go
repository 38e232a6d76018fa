// Wrong: receives on a goroutine, and does not tell the handler of the half-close: both sides wait for ever.
//
// Fails: TestTheHandlerAnswersWithAReceipt
// Says: UploadEvents has not returned after 1m0s
// Says: blocked in a select at answer.go:
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
	in := make(chan *feedv1.Event)
	failed := make(chan error, 1)
	go func() {
		for {
			ev, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				failed <- err
				return
			}
			in <- ev
		}
	}()
	var stored int32
	for {
		select {
		case err := <-failed:
			return err
		case ev, ok := <-in:
			if !ok {
				return stream.SendAndClose(&feedv1.UploadResult{Received: stored})
			}
			err := s.repo.Insert(stream.Context(), ev)
			if err != nil && !errors.Is(err, errDuplicate) {
				return status.Error(codes.Internal, "event not stored")
			}
			if err == nil {
				stored++
			}
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
