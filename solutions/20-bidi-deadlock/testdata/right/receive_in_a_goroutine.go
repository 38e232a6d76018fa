// Right: the replies have the goroutine, and the messages stay here.
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
	done := make(chan error, 1)
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				done <- err
				return
			}
			reply(msg.GetText())
		}
	}()
	for msg := range msgs {
		if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
			break
		}
	}
	stream.CloseSend()
	if err := <-done; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
