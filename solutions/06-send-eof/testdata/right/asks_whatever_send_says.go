// Right: asks at every error of Send, whose own errors CloseAndRecv knows as well, and needs no context of its own: CloseAndRecv ends the stream.
package main

import (
	"context"
	"errors"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// upload sends events until the server has stored all of them, on as many
// streams, one after the other, as the server wants. stored counts what the
// server's receipts say. The error says how the upload failed.
func upload(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) (stored int, err error) {
	for {
		stream, err := client.UploadEvents(ctx)
		if err != nil {
			return stored, err
		}
		for _, ev := range events[stored:] {
			if stream.Send(ev) != nil {
				break
			}
		}
		receipt, err := stream.CloseAndRecv()
		stored += int(receipt.GetReceived())
		if err != nil || stored == len(events) {
			return stored, err
		}
		if receipt.GetReceived() == 0 {
			return stored, errors.New("the server takes no more events")
		}
	}
}
