// Wrong: sends everything before it receives; the error is right.
//
// Fails: TestPipelineDoesNotLock
// Says: has not returned after 1m0s:
// Says: blocked in Send at answer.go:
// Says: meanwhile 28 of 200 messages were sent; the server has read 15 and sent 14 replies
package main

import (
	"context"
	"errors"
	"io"
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
	for msg := range msgs {
		if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
			break
		}
	}
	stream.CloseSend()
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		reply(msg.GetText())
	}
}
