// Right: stores up to 1,000 events at a time, or what came within 900 ms. The client sends with SendMsg.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

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
	ctx, in := stream.Context(), make(chan received)
	go func() {
		for {
			ev, err := stream.Recv()
			select {
			case in <- received{ev, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	var stored int32
	var batch []*feedv1.Event
	flush := func() error {
		for _, ev := range batch {
			switch err := s.repo.Insert(ctx, ev); {
			case errors.Is(err, errDuplicate):
			case err != nil:
				return status.Error(codes.Internal, "event not stored")
			default:
				stored++
			}
		}
		batch = nil
		return nil
	}
	tick := time.NewTicker(900 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if err := flush(); err != nil {
				return err
			}
		case r := <-in:
			if errors.Is(r.err, io.EOF) {
				if err := flush(); err != nil {
					return err
				}
				return stream.SendAndClose(&feedv1.UploadResult{Received: stored})
			}
			if r.err != nil {
				return r.err
			}
			if batch = append(batch, r.ev); len(batch) == 1000 {
				if err := flush(); err != nil {
					return err
				}
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
		return 0, fmt.Errorf("open: %w", err)
	}
	for _, ev := range events {
		if err = stream.SendMsg(ev); err != nil {
			break
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	var receipt feedv1.UploadResult
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	if err := stream.RecvMsg(&receipt); err != nil {
		return 0, fmt.Errorf("receipt: %w", err)
	}
	return receipt.GetReceived(), nil
}
