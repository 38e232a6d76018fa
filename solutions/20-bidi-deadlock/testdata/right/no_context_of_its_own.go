// Right: makes no context of its own, and uses SendMsg and RecvMsg.
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
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for msg := range msgs {
			var out feedv1.ChatMessage
			out.Text = msg
			if stream.SendMsg(&out) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	defer func() { <-sent }()
	for {
		m := new(feedv1.ChatMessage)
		err := stream.RecvMsg(m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		reply(m.Text)
	}
}
