// Right: wraps errors with %w, returns no replies beside one, and needs no cancel because it always reads to the end.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// chat sends all lines on one stream, and returns the text of all replies, in
// the order in which they came, when the server has ended the stream. How the
// server ended it, the error says: nil for OK, the server's status otherwise.
func chat(ctx context.Context, client feedv1.FeedServiceClient, lines []string) (replies []string, err error) {
	stream, err := client.Chat(ctx)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	var both sync.WaitGroup
	var end error
	both.Go(func() {
		for _, line := range lines {
			stream.Send(&feedv1.ChatMessage{From: "client", Text: line}) // an error here comes up in Recv too
		}
		stream.CloseSend()
	})
	both.Go(func() {
		for {
			var msg *feedv1.ChatMessage
			if msg, end = stream.Recv(); end != nil {
				return
			}
			replies = append(replies, msg.GetText())
		}
	})
	both.Wait()
	if !errors.Is(end, io.EOF) {
		return nil, fmt.Errorf("receive: %w", end)
	}
	return replies, nil
}
