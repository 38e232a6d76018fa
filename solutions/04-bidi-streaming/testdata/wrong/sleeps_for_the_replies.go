// Wrong: gives the replies a second to arrive instead of waiting for the end.
//
// Fails: TestChatWaitsForAServerThatTakesItsTime
// Says: returned 0 replies after 1s, want 3
package main

import (
	"context"
	"sync"
	"time"

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
	var mu sync.Mutex
	var all []string
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				return
			}
			mu.Lock()
			all = append(all, msg.GetText())
			mu.Unlock()
		}
	}()
	for _, line := range lines {
		if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
			break // the stream has ended; Recv tells how
		}
	}
	stream.CloseSend()
	time.Sleep(time.Second)
	mu.Lock()
	defer mu.Unlock()
	return all, nil
}
