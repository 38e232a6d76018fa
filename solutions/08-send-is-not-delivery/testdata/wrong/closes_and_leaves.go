// Wrong: half-closes and returns without the acks: the deferred cancel overtakes the events.
//
// Fails: TestIngestReturnsAnIdForEachAck
// Says: returned 0 ids and the error <nil> after 0s
package main

import (
	"context"

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
	}
	stream.CloseSend()
	return acked, nil
}
