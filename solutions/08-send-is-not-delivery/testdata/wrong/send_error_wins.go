// Wrong: keeps the error of Send, which is io.EOF, and forgets the status.
//
// Fails: TestTheStatusReachesTheCallerWhileSendWaits
// Says: the server failed with ResourceExhausted, and ingest returned code Unknown (send: EOF), want ResourceExhausted
package main

import (
	"context"
	"errors"
	"fmt"
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
	var failed error
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			failed = fmt.Errorf("send: %w", err)
			break
		}
	}
	stream.CloseSend()
	for {
		ack, err := stream.Recv()
		if err != nil && failed != nil {
			return acked, failed
		}
		if errors.Is(err, io.EOF) && len(acked) < len(events) {
			return acked, errors.New("acks are missing")
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
