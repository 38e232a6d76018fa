// Wrong: returns before Wait when there is no server: nobody cancels the context of the errgroup.
//
// Fails: TestPipelineSaysThatThereIsNoServer
// Says: a second later the context made at answer.go:
package main

import (
	"context"
	"errors"
	"io"
	"iter"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// pipeline sends msgs on one stream and calls reply with each reply, in the
// order in which they come, until the server ends the stream. How the server
// ended it, the error says: nil for OK, the server's status otherwise.
func pipeline(ctx context.Context, client feedv1.FeedServiceClient, msgs iter.Seq[string], reply func(string)) error {
	g, ctx := errgroup.WithContext(ctx)
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	g.Go(func() error {
		for {
			msg, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			reply(msg.GetText())
		}
	})
	g.Go(func() error {
		for msg := range msgs {
			if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
				return nil // Recv tells why
			}
		}
		return stream.CloseSend()
	})
	return g.Wait()
}
