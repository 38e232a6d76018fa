// Right: leaves up to a millisecond between two lines, and less where a reply comes first.
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	heard := make(chan struct{}, 1)
	var sender sync.WaitGroup
	sender.Go(func() {
		for _, line := range lines {
			if stream.Send(&feedv1.ChatMessage{Text: line}) != nil {
				return
			}
			select {
			case <-heard:
			case <-ctx.Done():
				return
			case <-time.After(time.Millisecond):
			}
		}
		stream.CloseSend()
	})
	for {
		var msg feedv1.ChatMessage
		if err = stream.RecvMsg(&msg); err != nil {
			break
		}
		replies = append(replies, msg.GetText())
		select {
		case heard <- struct{}{}:
		default:
		}
	}
	cancel()
	sender.Wait()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return replies, err
}
