// Wrong: when Send says io.EOF the sender takes the rest of in, so that whoever fills it is not held up: in stays open.
//
// Fails: TestSessionEndsWithItsServerWhileInStaysOpen
// Says: ends the chat before the first line comes from in
// Says: has not returned after 1h0m0s
// Says: blocked receiving from a channel at answer.go:
package main

import (
	"context"
	"errors"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// session is one chat: what comes from in is said, what is heard goes to out.
// It half-closes when in is closed, and closes out when it is done. How the
// chat ended, the error says: nil for OK, the server's status otherwise.
func session(ctx context.Context, client feedv1.FeedServiceClient, in <-chan string, out chan<- string) error {
	defer close(out)
	var sender sync.WaitGroup
	defer sender.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	sender.Go(func() {
		for {
			select {
			case line, ok := <-in:
				if !ok {
					stream.CloseSend()
					return
				}
				if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
					for range in { // let whoever fills it go on
					}
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
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
}
