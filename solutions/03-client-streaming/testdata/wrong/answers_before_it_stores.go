// Wrong: sends the receipt first, because the word Close sounds like an end, and stores after it.
//
// Fails: TestTheReceiptCountsWhatThisUploadStored
// Says: answered with a receipt for 5, want 3
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
	var events []*feedv1.Event
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		events = append(events, ev)
	}
	receipt := &feedv1.UploadResult{Received: int32(len(events))}
	if err := stream.SendAndClose(receipt); err != nil {
		return err
	}
	for _, ev := range events {
		err := s.repo.Insert(stream.Context(), ev)
		if err != nil && !errors.Is(err, errDuplicate) {
			return status.Error(codes.Internal, "event not stored")
		}
	}
	return nil
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
