// Wrong: half-closes before it sends: the first Send fails.
//
// Fails: TestChatReturnsAReplyForEachLine
// Says: SendMsg called after CloseSend
// Says: so chat itself gave up
package main

import (
	"context"
	"errors"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// chat sends all lines on one stream, and returns the text of all replies, in
// the order in which they came, when the server has ended the stream. How the
// server ended it, the error says: nil for OK, the server's status otherwise.
func chat(ctx context.Context, client feedv1.FeedServiceClient, lines []string) (replies []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	done := make(chan error, 1)
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				done <- err
				return
			}
			replies = append(replies, msg.GetText())
		}
	}()
	stream.CloseSend() // nothing is left to close at the end
	for _, line := range lines {
		if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
			break // the stream has ended; Recv tells how
		}
	}
	if err := <-done; !errors.Is(err, io.EOF) {
		return replies, err
	}
	return replies, nil
}
