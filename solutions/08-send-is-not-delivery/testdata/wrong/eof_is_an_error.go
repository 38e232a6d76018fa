// Wrong: returns the io.EOF of Recv: a good end looks like a failure.
//
// Fails: TestIngestReturnsAnIdForEachAck
// Says: returned the error "EOF", want none: all acks had arrived, and the server did not fail
package main

import (
	"context"
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
		stream.CloseSend()
	})
	for {
		ack, err := stream.Recv()
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetId())
	}
}
