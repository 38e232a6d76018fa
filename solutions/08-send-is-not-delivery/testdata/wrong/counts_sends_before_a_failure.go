// Wrong: waits for the end and takes what it sent before a failure for stored.
//
// Fails: TestIngestReturnsTheAcksThatArrivedBeforeTheCut
// Says: a cut after 50µs, returned 20 ids
// Says: and 0 acks had arrived by then: 20 are too many, from 1 on
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
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			break
		}
		acked = append(acked, ev.GetId())
	}
	stream.CloseSend()
	for acks := 0; ; acks++ {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) && acks < len(events) {
			return acked[:acks], errors.New("acks are missing")
		}
		if errors.Is(err, io.EOF) {
			return acked, nil
		}
		if err != nil {
			return acked, err
		}
	}
}
