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
		// TODO: what do you know of an event whose Send returned nil, and
		// what does an error of Send tell you?
		if err := stream.Send(ev); err != nil {
			return acked, err
		}
		acked = append(acked, ev.GetId())
	}
	// TODO: where are the events now, and what does returning do to them?
	return acked, nil
}
