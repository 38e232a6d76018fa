// Wrong: leaves at the last ack without a cancel: the stream stays open.
//
// Fails: TestIngestReturnsAnIdForEachAck
// Says: 1 of 1 RPCs never ended (Ingest, opened at answer.go:
package main

import (
	"context"
	"errors"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ingest sends all events on one stream, and returns the ids of those whose
// acks arrived, in the order in which they arrived. Without an error these are
// all. With one, the caller sends the others again: they may be stored or not.
func ingest(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (acked []string, err error) {
	stream, err := client.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	var sender sync.WaitGroup
	defer sender.Wait()
	sender.Go(func() {
		for _, ev := range events {
			if err := stream.Send(ev); err != nil {
				return
			}
		}
		stream.CloseSend()
	})
	for len(acked) < len(events) {
		ack, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return acked, errors.New("acks are missing")
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetId())
	}
	return acked, nil
}
