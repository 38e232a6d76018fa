// Wrong: opens a stream for each event.
//
// Fails: TestIngestReturnsAnIdForEachAck
// Says: opened 20 streams, want one
package main

import (
	"context"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ingest sends all events on one stream, and returns the ids of those whose
// acks arrived, in the order in which they arrived. Without an error these are
// all. With one, the caller sends the others again: they may be stored or not.
func ingest(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (acked []string, err error) {
	for _, ev := range events {
		if err := one(ctx, client, ev); err != nil {
			return acked, err
		}
		acked = append(acked, ev.GetId())
	}
	return acked, nil
}

func one(ctx context.Context, client feedv1.FeedServiceClient, ev *feedv1.Event) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Ingest(ctx)
	if err != nil {
		return err
	}
	stream.Send(ev)
	stream.CloseSend()
	_, err = stream.Recv()
	return err
}
