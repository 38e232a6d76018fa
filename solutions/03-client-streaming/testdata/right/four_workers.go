// Right: four workers store at the same time, in any order. The first failure ends the handler, and with it the Recv that is pending.
package main

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
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
	g, ctx := errgroup.WithContext(stream.Context())
	in := make(chan *feedv1.Event)
	g.Go(func() error {
		defer close(in)
		events, failed := s.receive(ctx, stream)
		for {
			select {
			case ev, ok := <-events:
				if !ok {
					return <-failed
				}
				select {
				case in <- ev:
				case <-ctx.Done():
					return ctx.Err()
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	var stored atomic.Int32
	for range 4 {
		g.Go(func() error {
			for ev := range in {
				switch err := s.repo.Insert(ctx, ev); {
				case errors.Is(err, errDuplicate):
				case err != nil:
					return status.Error(codes.Internal, "event not stored")
				default:
					stored.Add(1)
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return stream.SendAndClose(&feedv1.UploadResult{Received: stored.Load()})
}

// receive runs until the stream ends, at the latest with the handler. failed
// says whether it ended in another way than by a half-close.
func (s *server) receive(ctx context.Context, stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) (<-chan *feedv1.Event, <-chan error) {
	events, failed := make(chan *feedv1.Event), make(chan error, 1)
	go func() {
		defer close(events)
		for {
			ev, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				failed <- nil
				return
			}
			if err != nil {
				failed <- err
				return
			}
			select {
			case events <- ev:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	}()
	return events, failed
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
