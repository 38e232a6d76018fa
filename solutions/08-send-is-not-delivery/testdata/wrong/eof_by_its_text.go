// Wrong: looks for EOF in the text: a connection that breaks has it there too, and its code is lost.
//
// Fails: TestIngestEndsWhenTheServerStops
// Says: the server stopped after 2s, and ingest returned code Unknown (the server ended the stream after 3 of 20 acks), want Unavailable
package main

import (
	"context"
	"fmt"
	"strings"
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
		if err != nil && strings.Contains(err.Error(), "EOF") && len(acked) < len(events) {
			return acked, fmt.Errorf("the server ended the stream after %d of %d acks", len(acked), len(events))
		}
		if err != nil && strings.Contains(err.Error(), "EOF") {
			return acked, nil
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetId())
	}
}
