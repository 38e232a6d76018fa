// Wrong: closes out when the caller cancels, and the receiving goroutine is about to send to it.
//
// Fails: TestSessionEndsWhenItsReaderHasLeftAndItsCallerCancels
// Says: send on closed channel
package main

import (
	"context"
	"errors"
	"io"

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
		return err
	}
	ended := make(chan error, 1)
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			out <- msg.GetText()
		}
	}()
	lines := in
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				stream.CloseSend()
				lines = nil
				continue
			}
			stream.Send(&feedv1.ChatMessage{From: "client", Text: line}) // Recv tells of its failure
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
