// Wrong: waits up to 5 s for a reply to each line before it half-closes: a server that answers at the end is kept waiting.
//
// Fails: TestChatReturnsRepliesThatComeAfterTheHalfClose
// Says: half-closed the stream 5s after it was called, want at most 50ms
package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

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
	heard := make(chan struct{}, len(lines))
	sender.Go(func() {
		for _, line := range lines {
			if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
				return // the stream has ended; Recv tells how
			}
		}
		patience := time.After(5 * time.Second)
		for range lines {
			select {
			case <-heard:
			case <-patience:
				stream.CloseSend()
				return
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
		select {
		case heard <- struct{}{}:
		default: // more replies than lines
		}
	}
}
