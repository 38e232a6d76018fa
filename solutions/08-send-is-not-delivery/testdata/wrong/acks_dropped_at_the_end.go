// Wrong: hands acks over in a channel and, at the error, does not look into it again.
//
// Fails: TestNoAckIsLostToAStatusBehindIt
// Says: returned 0 ids
// Says: and 999 acks had arrived by then: 999 are missing
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
	acks := make(chan string, len(events))
	done := make(chan error)
	sender.Go(func() {
		for {
			ack, err := stream.Recv()
			if err != nil {
				done <- err
				return
			}
			acks <- ack.GetId()
		}
	})
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			break
		}
	}
	stream.CloseSend()
	err = <-done
	if !errors.Is(err, io.EOF) {
		return acked, err
	}
	for range len(acks) {
		acked = append(acked, <-acks)
	}
	if len(acked) < len(events) {
		return acked, errors.New("acks are missing")
	}
	return acked, nil
}
