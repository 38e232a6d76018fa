// Right: stores up to 16 events at the same time. The client breaks at any error of Send, because CloseAndRecv says which it was.
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
	var stored atomic.Int32
	g, ctx := errgroup.WithContext(stream.Context())
	g.SetLimit(16)
	end := make(chan error, 1)
	go func() {
		for {
			ev, err := stream.Recv()
			if err != nil {
				end <- err
				return
			}
			if ctx.Err() != nil {
				return
			}
			g.Go(func() error {
				switch err := s.repo.Insert(ctx, ev); {
				case errors.Is(err, errDuplicate):
				case err != nil:
					return status.Error(codes.Internal, "event not stored")
				default:
					stored.Add(1)
				}
				return nil
			})
		}
	}()
	select {
	case err := <-end:
		if !errors.Is(err, io.EOF) {
			return err
		}
		if err := g.Wait(); err != nil {
			return err
		}
		return stream.SendAndClose(&feedv1.UploadResult{Received: stored.Load()})
	case <-ctx.Done():
		if err := stream.Context().Err(); err != nil {
			return err
		}
		return status.Error(codes.Internal, "event not stored")
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
		if stream.Send(ev) != nil {
			break
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
