// Wrong: half-closes and does not ask: it learns of no failure that Send did not see.
//
// Fails: TestAllEventsGoOnOneStream
// Says: 3 events: upload returned 3 and no error, and the server has stored 0 of 3 events: its receipts say no more
package main

import (
	"context"
	"errors"
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
		return 0, err
	}
	for _, ev := range events {
		err := stream.Send(ev)
		if errors.Is(err, io.EOF) {
			receipt, err := stream.CloseAndRecv()
			return int(receipt.GetReceived()), err
		}
		if err != nil {
			return 0, err
		}
	}
	return len(events), stream.CloseSend()
}
