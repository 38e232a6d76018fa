// Right: knows the order of the acks and counts them; with nothing to send it opens no stream.
package main

import (
	"context"
	"errors"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ingest sends all events on one stream, and returns the ids of those whose
// acks arrived, in the order in which they arrived. Without an error these are
// all. With one, the caller sends the others again: they may be stored or not.
func ingest(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (acked []string, err error) {
	if len(events) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	acks, done := 0, make(chan error, 1)
	go func() {
		for {
			if _, err := stream.Recv(); err != nil {
				done <- err
				return
			}
			acks++
		}
	}()
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			break
		}
	}
	stream.CloseSend()
	err = <-done
	for _, ev := range events[:acks] {
		acked = append(acked, ev.GetId())
	}
	if errors.Is(err, io.EOF) && acks == len(events) {
		err = nil
	}
	return acked, err
}
