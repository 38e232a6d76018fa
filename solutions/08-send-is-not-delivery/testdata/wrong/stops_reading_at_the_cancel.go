// Wrong: stops reading when the context ends, although acks wait in the stream.
//
// Fails: TestTheCancelOfTheCallerHolds
// Says: returned 0 ids and the error context canceled after 2s
// Says: and 3 acks had arrived by then: 3 are missing, from 1 on
package main

import (
	"context"
	"errors"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ingest sends all events on one stream, and returns the ids of those whose
// acks arrived, in the order in which they arrived. Without an error these are
// all. With one, the caller sends the others again: they may be stored or not.
func ingest(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (acked []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	go func() {
		for _, ev := range events {
			if err := stream.Send(ev); err != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	acks := make(chan string)
	done := make(chan error, 1)
	go func() {
		for {
			ack, err := stream.Recv()
			if err != nil {
				done <- err
				return
			}
			select {
			case acks <- ack.GetId():
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		select {
		case id := <-acks:
			acked = append(acked, id)
		case err := <-done:
			if errors.Is(err, io.EOF) && len(acked) < len(events) {
				return acked, errors.New("acks are missing")
			}
			if errors.Is(err, io.EOF) {
				return acked, nil
			}
			return acked, err
		case <-ctx.Done():
			return acked, ctx.Err()
		}
	}
}
