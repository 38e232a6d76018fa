// Wrong: opens another stream when one breaks: what the caller wanted to decide is decided.
//
// Fails: TestTheStatusOfTheServerReachesTheCaller
// Says: opened 2 streams, want one: what has no ack, the caller sends again
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ingest sends all events on one stream, and returns the ids of those whose
// acks arrived, in the order in which they arrived. Without an error these are
// all. With one, the caller sends the others again: they may be stored or not.
func ingest(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (acked []string, err error) {
	acked, err = once(ctx, client, events)
	if status.Code(err) == codes.Unavailable {
		var more []string
		more, err = once(ctx, client, events[len(acked):])
		acked = append(acked, more...)
	}
	return acked, err
}

func once(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (acked []string, err error) {
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
