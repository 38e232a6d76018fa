// Wrong: takes the io.EOF of Send for a good end: the status is lost.
//
// Fails: TestChatReturnsTheStatusWhenTheServerFailsWhileSendWaits
// Says: and chat returned 0 replies and no error, want code FailedPrecondition
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
	for _, line := range lines {
		err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line})
		if errors.Is(err, io.EOF) {
			return replies, nil
		}
		if err != nil {
			return replies, err
		}
	}
	stream.CloseSend()
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return replies, nil
		}
		if err != nil {
			return replies, err
		}
		replies = append(replies, msg.GetText())
	}
}
