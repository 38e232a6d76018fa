// Wrong: the receiver ends at any error and tells nobody: a failed chat looks like a short one.
//
// Fails: TestChatReturnsTheStatusOfAServerThatFails
// Says: the server failed with FailedPrecondition after the half-close, and chat returned 3 replies and no error
package main

import (
	"context"

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
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			msg, err := stream.Recv()
			if err != nil {
				return
			}
			replies = append(replies, msg.GetText())
		}
	}()
	for _, line := range lines {
		if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
			break // the stream has ended; Recv tells how
		}
	}
	stream.CloseSend()
	<-done
	return replies, nil
}
