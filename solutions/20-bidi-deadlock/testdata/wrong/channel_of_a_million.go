// Wrong: a channel with room for all replies holds them until all is sent.
//
// Fails: TestPipelineDoesNotLock
// Says: pipeline had received 17 replies, and reply had had 0 of them: it held 17, in hand and in queues, want at most 16
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
	replies := make(chan string, 1_000_000)
	var end error
	go func() {
		defer close(replies)
		for {
			msg, err := stream.Recv()
			if err != nil {
				end = err
				return
			}
			select {
			case replies <- msg.GetText():
			case <-ctx.Done():
				end = ctx.Err()
				return
			}
		}
	}()
	for msg := range msgs {
		if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
			break
		}
	}
	stream.CloseSend()
	for text := range replies {
		reply(text)
	}
	if !errors.Is(end, io.EOF) {
		return end
	}
	return nil
}
