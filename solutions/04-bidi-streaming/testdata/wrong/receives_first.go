// Wrong: receives until the end and sends afterwards: both sides wait.
//
// Fails: TestChatReturnsAReplyForEachLine
// Says: has received 0 of 3 lines
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
	var end error
	for end == nil {
		var msg *feedv1.ChatMessage
		if msg, end = stream.Recv(); end == nil {
			replies = append(replies, msg.GetText())
		}
	}
	for _, line := range lines {
		if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
			break // the stream has ended; Recv tells how
		}
	}
	stream.CloseSend()
	if !errors.Is(end, io.EOF) {
		return replies, end
	}
	return replies, nil
}
