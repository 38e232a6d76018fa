// Right: an errgroup runs both directions; the receiver ends the sender by a cancel of its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// session is one chat: what comes from in is said, what is heard goes to out.
// It half-closes when in is closed, and closes out when it is done. How the
// chat ended, the error says: nil for OK, the server's status otherwise.
func session(ctx context.Context, client feedv1.FeedServiceClient, in <-chan string, out chan<- string) error {
	defer close(out)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	var g errgroup.Group
	g.Go(func() error {
		for {
			select {
			case line, ok := <-in:
				if !ok {
					return stream.CloseSend()
				}
				if stream.Send(&feedv1.ChatMessage{From: "client", Text: line}) != nil {
					return nil
				}
			case <-ctx.Done():
				return nil
			}
		}
	})
	g.Go(func() error {
		defer cancel()
		for {
			msg, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return fmt.Errorf("receive: %w", err)
			}
			select {
			case out <- msg.GetText():
			case <-ctx.Done():
				return fmt.Errorf("hand over: %w", ctx.Err())
			}
		}
	})
	return g.Wait()
}
