package main

import (
	"context"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// upload sends events until the server has stored all of them, on as many
// streams, one after the other, as the server wants. stored counts what the
// server's receipts say. The error says how the upload failed.
func upload(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (stored int, err error) {
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return stored, err
	}
	for _, ev := range events {
		// TODO: if this is io.EOF the server has ended the stream. Was that a
		// good end, and who tells?
		if err := stream.Send(ev); err != nil {
			return stored, err
		}
		// TODO: a Send that returned nil is no receipt.
		stored++
	}
	// TODO: the server may have enough after the first few events, and say OK.
	// What becomes of the rest?
	if _, err := stream.CloseAndRecv(); err != nil {
		return stored, err
	}
	return stored, nil
}
