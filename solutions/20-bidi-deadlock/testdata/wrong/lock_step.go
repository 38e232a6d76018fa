// Wrong: waits for a reply after each message, so that neither side has to wait for a window.
//
// Fails: TestPipelineDoesNotLock
// Says: a server that echoes 1300 messages of 250 B returned after
// Says: want at most 5s
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
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		reply(msg.GetText())
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
