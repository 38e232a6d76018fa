// Wrong: stops at the last reply, one Recv before the end: the stream is left open.
//
// Fails: TestChatReturnsAReplyForEachLine
// Says: 1 of 1 RPCs never ended (Chat, opened at answer.go:
package main

import (
	"context"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// chat sends all lines on one stream, and returns the text of all replies, in
// the order in which they came, when the server has ended the stream. How the
// server ended it, the error says: nil for OK, the server's status otherwise.
func chat(ctx context.Context, client feedv1.FeedServiceClient, lines []string) (replies []string, err error) {
	stream, err := client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	go func() {
		for _, line := range lines {
			if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
				return // the stream has ended; Recv tells how
			}
		}
		stream.CloseSend()
	}()
	for range lines {
		msg, err := stream.Recv()
		if err != nil {
			return replies, err
		}
		replies = append(replies, msg.GetText())
	}
	return replies, nil
}
