// Right: gives the stream a context of its own, and ends it when the caller's context ends.
package main

import (
	"context"
	"errors"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// chat sends all lines on one stream, and returns the text of all replies, in
// the order in which they came, when the server has ended the stream. How the
// server ended it, the error says: nil for OK, the server's status otherwise.
func chat(ctx context.Context, client feedv1.FeedServiceClient, lines []string) (replies []string, err error) {
	var sender sync.WaitGroup
	defer sender.Wait()
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	stream, err := client.Chat(own)
	if err != nil {
		return nil, err
	}
	sender.Go(func() {
		for _, line := range lines {
			if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
				return // the stream has ended; Recv tells how
			}
		}
		stream.CloseSend()
	})
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return replies, nil
		}
		if ctx.Err() != nil {
			return replies, ctx.Err()
		}
		if err != nil {
			return replies, err
		}
		replies = append(replies, msg.GetText())
	}
}
