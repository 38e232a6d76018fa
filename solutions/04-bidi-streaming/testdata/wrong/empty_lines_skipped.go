// Wrong: keeps empty lines to itself.
//
// Fails: TestChatLeavesLinesAndRepliesAsTheyAre
// Says: sent 2 lines, want 3:
// Says: got [" a " "a"]
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	sender.Go(func() {
		for _, line := range lines {
			if line == "" {
				continue
			}
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
		if err != nil {
			return replies, err
		}
		replies = append(replies, msg.GetText())
	}
}
