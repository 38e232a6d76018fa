// Wrong: the errgroup keeps the first error, and that is the io.EOF of Send.
//
// Fails: TestChatEndsWellWhenTheServerEndsWhileSendWaits
// Says: returned the error "EOF"
package main

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// chat sends all lines on one stream, and returns the text of all replies, in
// the order in which they came, when the server has ended the stream. How the
// server ended it, the error says: nil for OK, the server's status otherwise.
func chat(ctx context.Context, client feedv1.FeedServiceClient, lines []string) (replies []string, err error) {
	g, ctx := errgroup.WithContext(ctx)
	stream, err := client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	g.Go(func() error {
		for _, line := range lines {
			if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
				return err
			}
		}
		return stream.CloseSend()
	})
	g.Go(func() error {
		for {
			msg, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			replies = append(replies, msg.GetText())
		}
	})
	err = g.Wait()
	return replies, err
}
