// Wrong: opens a stream for each 20 messages.
//
// Fails: TestPipelineDoesNotLock
// Says: pipeline ranged over msgs a second time
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
	for from := 0; ; from += 20 {
		n, err := batch(ctx, client, msgs, from, reply)
		if err != nil || n < 20 {
			return err
		}
	}
}

func batch(ctx context.Context, client feedv1.FeedServiceClient, msgs iter.Seq[string], from int, reply func(string)) (n int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return 0, err
	}
	i := 0
	for msg := range msgs {
		if i++; i <= from {
			continue
		}
		if n == 20 || stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
			break
		}
		n++
	}
	stream.CloseSend()
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return n, err
		}
		reply(msg.GetText())
	}
}
