// Wrong: drops events while its queue is full: what the client was made to wait for is lost.
//
// Fails: TestASlowInsertMakesTheClientWait
// Says: UploadEvents has received 3000 of 3000 events, want at most 2000
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
	type received struct {
		ev  *feedv1.Event
		err error
	}
	ctx, in := stream.Context(), make(chan received, 1024)
	go func() {
		for {
			ev, err := stream.Recv()
			select {
			case in <- received{ev, err}:
			default: // the database is slow
			}
			if err != nil {
				return
			}
		}
	}()
	var stored int32
	for {
		var r received
		select {
		case r = <-in:
		case <-ctx.Done():
			return ctx.Err()
		}
		if errors.Is(r.err, io.EOF) {
			return stream.SendAndClose(&feedv1.UploadResult{Received: stored})
		}
		if r.err != nil {
			return r.err
		}
		switch err := s.repo.Insert(ctx, r.ev); {
		case errors.Is(err, errDuplicate):
		case err != nil:
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
