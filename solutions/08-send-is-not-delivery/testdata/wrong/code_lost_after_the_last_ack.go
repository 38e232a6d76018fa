// Wrong: loses the code of a status that comes after the last ack.
//
// Fails: TestTheStatusOfTheServerReachesTheCaller
// Says: a server that fails after all acks: the server failed with Canceled
// Says: and ingest returned code Unknown (20 of 20 events have their acks, and the stream failed), want Canceled
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
	for range events {
		ack, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return acked, fmt.Errorf("the server ended the stream after %d of %d acks", len(acked), len(events))
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetId())
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return acked, fmt.Errorf("%d of %d events have their acks, and the stream failed", len(acked), len(events))
	}
	return acked, nil
}
