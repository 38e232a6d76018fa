// Wrong: where no stream could be opened nobody waits for the errgroup, and nothing cancels its context.
//
// Fails: TestSessionClosesOutWithoutAStream
// Says: the context made at answer.go:
// Says: was never cancelled
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
	errOver := errors.New("the chat is over") // ends the sender
	g.Go(func() error {
		for {
			select {
			case line, ok := <-in:
				if !ok {
					stream.CloseSend()
					return nil
				}
				if stream.Send(&feedv1.ChatMessage{From: "client", Text: line}) != nil {
					return nil // Recv tells how
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	g.Go(func() error {
		for {
			msg, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return errOver
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
	if err := g.Wait(); err != errOver {
		return err
	}
	return nil
}
