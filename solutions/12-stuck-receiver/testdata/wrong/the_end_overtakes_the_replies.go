// Wrong: an errgroup cancels the goroutine that hands over as soon as Recv fails: replies that came before are lost.
//
// Fails: TestSessionEndsWithItsServerWhileInStaysOpen
// Says: and the reader of out had 0 replies, want 2
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
	queue := make(chan string, 10)
	g.Go(func() error {
		for {
			msg, err := stream.Recv()
			if err != nil {
				return err
			}
			select {
			case queue <- msg.GetText():
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	g.Go(func() error {
		for {
			select {
			case text := <-queue:
				select {
				case out <- text:
				case <-ctx.Done():
					return ctx.Err()
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	g.Go(func() error {
		for {
			select {
			case line, ok := <-in:
				if !ok {
					return stream.CloseSend()
				}
				if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
					return nil
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if err := g.Wait(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
