// Wrong: logs what Send returns and goes on with the next event: what was refused is forgotten.
//
// Fails: TestTheStatusOfARejectionReachesTheCaller
// Says: 400 events, and the server rejects the third: upload returned 129 and no error, want code PermissionDenied
package main

import (
	"context"
	"log"

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
		if err := stream.Send(ev); err != nil {
			log.Printf("event %s not sent: %v", ev.GetId(), err)
			continue
		}
		stored++
	}
	if err := stream.CloseSend(); err != nil {
		return 0, err
	}
	return stored, nil
}
