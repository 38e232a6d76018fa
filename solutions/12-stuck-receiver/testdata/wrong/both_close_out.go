// Wrong: the receiving goroutine closes out, and so does session.
//
// Fails: TestSessionHandsOverWhatTheServerSays
// Says: close of closed channel
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
				close(out)
				ended <- err
				return
			}
			select {
			case out <- msg.GetText():
			case <-ctx.Done():
				close(out)
				ended <- ctx.Err()
				return
			}
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
		}
	}
}
