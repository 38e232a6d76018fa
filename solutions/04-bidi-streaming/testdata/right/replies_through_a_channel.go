// Right: the receiver hands each reply over on a channel, and gives up with the caller.
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
	end := make(chan error, 1)
	go func() {
		defer close(got)
		for {
			msg, err := stream.Recv()
			if err != nil {
				end <- err
				return
			}
			select {
			case got <- msg.GetText():
			case <-ctx.Done():
				end <- ctx.Err()
				return
			}
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
		case text, ok := <-got:
			if ok {
				replies = append(replies, text)
				continue
			}
			if err := <-end; !errors.Is(err, io.EOF) {
				return replies, err
			}
			return replies, nil
		case <-ctx.Done():
			return replies, ctx.Err()
		}
	}
}
