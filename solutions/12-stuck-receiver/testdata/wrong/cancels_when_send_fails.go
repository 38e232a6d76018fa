// Wrong: the sender cancels when Send says io.EOF: the replies that wait for the reader, and the status, are lost.
//
// Fails: TestSessionEndsWithItsServerWhileInStaysOpen
// Says: ends the chat before the first line comes from in
// Says: and the reader of out had 0 replies, want 2
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
					cancel() // the stream is broken
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
