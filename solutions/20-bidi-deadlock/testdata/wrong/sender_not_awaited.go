// Wrong: does not wait for its sender: the cancel ends Send, and not msgs.
//
// Fails: TestPipelineEndsAsTheServerEnds
// Says: while msgs took an hour for the next has returned, and a second later a goroutine that was started at answer.go:
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
	go func() {
		for msg := range msgs {
			if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
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
