package main

import (
	"context"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// session is one chat: what comes from in is said, what is heard goes to out.
// It half-closes when in is closed, and closes out when it is done. How the
// chat ended, the error says: nil for OK, the server's status otherwise.
func session(ctx context.Context, client feedv1.FeedServiceClient, in <-chan string, out chan<- string) error {
	stream, err := client.Chat(ctx)
	if err != nil {
		return err // TODO: out has a reader. What does it learn here?
	}
	go func() {
		defer close(out)
		for {
			msg, err := stream.Recv()
			if err != nil {
				return // TODO: who wants to know how the chat ended?
			}
			// TODO: what ends this wait when nobody reads out any more?
			out <- msg.GetText()
		}
	}()
	// TODO: in may stay open after the chat has ended. Who tells this loop?
	for line := range in {
		if err := stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
			return err
		}
	}
	// TODO: is anything of session still at work when it returns?
	return stream.CloseSend()
}
