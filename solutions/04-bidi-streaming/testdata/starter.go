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
	// TODO: a reply may come before its line, long after it, three times or
	// not at all. Which of these calls may wait for the other?
	for _, line := range lines {
		if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
			return replies, err
		}
		msg, err := stream.Recv()
		if err != nil {
			return replies, err
		}
		replies = append(replies, msg.GetText())
	}
	// TODO: how does the server learn that this was the last line, and how
	// do you learn that you have its last reply?
	return replies, nil
}
