// Wrong: does not half-close: what the server holds for its next batch is never stored.
//
// Fails: TestIngestGetsTheAcksThatComeInBatches
// Says: with a server that stores batches of 7, and the rest at the half-close, has not returned after 1m0s
// Says: the server has received 250 events and no half-close, and has sent 245 acks
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
	var sender sync.WaitGroup
	defer sender.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	sender.Go(func() {
		for _, ev := range events {
			if err := stream.Send(ev); err != nil {
				return
			}
		}
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
