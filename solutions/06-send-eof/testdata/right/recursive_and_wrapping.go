// Right: calls itself for the rest, and wraps what it returns.
package main

import (
	"context"
	"fmt"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// upload sends events until the server has stored all of them, on as many
// streams, one after the other, as the server wants. stored counts what the
// server's receipts say. The error says how the upload failed.
func upload(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (stored int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, fmt.Errorf("open: %w", err)
	}
	for i, ev := range events {
		err := stream.Send(ev)
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("event %d: %w", i, err)
		}
	}
	receipt, err := stream.CloseAndRecv()
	if err != nil {
		return 0, fmt.Errorf("receipt: %w", err)
	}
	n := int(receipt.GetReceived())
	switch {
	case n == len(events):
		return n, nil
	case n == 0:
		return 0, fmt.Errorf("the server takes none of %d events", len(events))
	}
	more, err := upload(ctx, client, events[n:])
	return n + more, err
}
