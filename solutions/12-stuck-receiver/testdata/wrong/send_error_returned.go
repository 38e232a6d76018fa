// Wrong: the errgroup keeps the first error, and that is the io.EOF of Send.
//
// Fails: TestSessionEndsWithItsServerWhileSendWaits
// Says: (EOF)
package main

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// session is one chat: what comes from in is said, what is heard goes to out.
// It half-closes when in is closed, and closes out when it is done. How the
// chat ended, the error says: nil for OK, the server's status otherwise.
func session(ctx context.Context, client feedv1.FeedServiceClient, in <-chan string, out chan<- string) error {
	defer close(out)
	g, ctx := errgroup.WithContext(ctx)
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	over := make(chan struct{})
	g.Go(func() error {
		for {
			select {
			case line, ok := <-in:
				if !ok {
					return stream.CloseSend()
				}
				if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
					return err
				}
			case <-over:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	g.Go(func() error {
		defer close(over)
		for {
			msg, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			select {
			case out <- msg.GetText():
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return g.Wait()
}
