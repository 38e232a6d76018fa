// Wrong: hangs up when no reply has come for 90 minutes: a time limit of its own.
//
// Fails: TestChatWaitsForAServerThatTakesItsTime
// Says: after 1h30m0s, want none
// Says: the server had not ended the stream, and the caller's context was alive, so chat itself gave up
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
	sender.Go(func() {
		for _, line := range lines {
			if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
				return // the stream has ended; Recv tells how
			}
		}
		stream.CloseSend()
	})
	idle := time.AfterFunc(90*time.Minute, cancel)
	defer idle.Stop()
	for {
		idle.Reset(90 * time.Minute)
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
