// Wrong: looks for EOF in the text: a connection that breaks has it there too.
//
// Fails: TestChatEndsWhenTheConnectionBreaks
// Says: the server closed the connection after 2s of a chat with a server that echoes and then stays, and chat returned 3 replies and no error, want code Unavailable
package main

import (
	"context"
	"strings"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// chat sends all lines on one stream, and returns the text of all replies, in
// the order in which they came, when the server has ended the stream. How the
// server ended it, the error says: nil for OK, the server's status otherwise.
func chat(ctx context.Context, client feedv1.FeedServiceClient, lines []string) (replies []string, err error) {
	var sender sync.WaitGroup
	defer sender.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
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
		if err != nil && strings.Contains(err.Error(), "EOF") {
			return replies, nil
		}
		if err != nil {
			return replies, err
		}
		replies = append(replies, msg.GetText())
	}
}
