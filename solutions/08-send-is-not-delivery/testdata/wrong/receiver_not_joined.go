// Wrong: returns when all is sent, without waiting for the goroutine that receives.
//
// Fails: TestIngestReturnsAnIdForEachAck
// Says: returned 0 ids and the error <nil> after 0s
package main

import (
	"context"
	"slices"
	"sync"

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
	var mu sync.Mutex
	go func() {
		for {
			ack, err := stream.Recv()
			if err != nil {
				return
			}
			mu.Lock()
			acked = append(acked, ack.GetId())
			mu.Unlock()
		}
	}()
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			break
		}
	}
	stream.CloseSend()
	mu.Lock()
	defer mu.Unlock()
	return slices.Clone(acked), nil
}
