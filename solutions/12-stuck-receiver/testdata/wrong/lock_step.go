// Wrong: waits for a reply after each line.
//
// Fails: TestSessionHandsOverWhatTheServerSays
// Says: session with a server that speaks first
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
	for {
		select {
		case line, ok := <-in:
			if !ok {
				stream.CloseSend()
				_, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
			if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
				return err
			}
			msg, err := stream.Recv()
			if err != nil {
				return err
			}
			select {
			case out <- msg.GetText():
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
