// Wrong: opens the stream with Background: the caller cannot end it.
//
// Fails: TestTheCancelOfTheCallerHolds
// Says: has not returned after 1m0s
// Says: the server has received 20 events and the half-close, and has sent 3 acks
package main

import (
	"context"
	"errors"
	"fmt"
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
	ctx, cancel := context.WithCancel(context.Background())
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
		if errors.Is(err, io.EOF) && len(acked) < len(events) {
			return acked, fmt.Errorf("the server ended the stream after %d of %d acks", len(acked), len(events))
		}
		if errors.Is(err, io.EOF) {
			return acked, nil
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetId())
	}
}
