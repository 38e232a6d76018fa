// Wrong: leaves with the caller's context, and nobody hears what the receiver has to say: its goroutine waits for ever.
//
// Fails: TestTheCancelOfTheCallerHolds
// Says: a goroutine that was started at answer.go:
// Says: still runs: blocked sending to a channel at answer.go:
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
	got := make(chan string)
	end := make(chan error)
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				end <- err
				return
			}
			got <- msg.GetText()
		}
	}()
	go func() {
		for _, line := range lines {
			if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
				return // the stream has ended; Recv tells how
			}
		}
		stream.CloseSend()
	}()
	for {
		select {
		case text := <-got:
			replies = append(replies, text)
		case err := <-end:
			if errors.Is(err, io.EOF) {
				return replies, nil
			}
			return replies, err
		case <-ctx.Done():
			return replies, ctx.Err()
		}
	}
}
