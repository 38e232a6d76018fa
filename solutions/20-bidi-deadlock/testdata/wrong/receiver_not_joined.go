// Wrong: returns when all is sent, and does not wait for its receiver.
//
// Fails: TestPipelineDoesNotLock
// Says: before the server had ended the stream
package main

import (
	"context"
	"iter"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// pipeline sends msgs on one stream and calls reply with each reply, in the
// order in which they come, until the server ends the stream. How the server
// ended it, the error says: nil for OK, the server's status otherwise.
func pipeline(ctx context.Context, client feedv1.FeedServiceClient, msgs iter.Seq[string], reply func(string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				return
			}
			reply(msg.GetText())
		}
	}()
	for msg := range msgs {
		if err := stream.Send(&feedv1.ChatMessage{Text: msg}); err != nil {
			return err
		}
	}
	return stream.CloseSend()
}
