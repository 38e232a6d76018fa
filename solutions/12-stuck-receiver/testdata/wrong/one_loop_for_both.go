// Wrong: one loop for both directions: while a reply waits for its reader, nothing that comes from in is said.
//
// Fails: TestSessionSaysAllWhileNobodyReadsOut
// Says: after in had it, want at most 1s, also while nobody reads out
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
	ctx, cancel := context.WithCancel(ctx)
	var receiver sync.WaitGroup
	defer receiver.Wait()
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	type heard struct {
		text string
		err  error
	}
	replies := make(chan heard)
	receiver.Go(func() {
		for {
			msg, err := stream.Recv()
			select {
			case replies <- heard{msg.GetText(), err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
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
		case reply := <-replies:
			if errors.Is(reply.err, io.EOF) {
				return nil
			}
			if reply.err != nil {
				return reply.err
			}
			select {
			case out <- reply.text:
			case <-ctx.Done():
				return ctx.Err()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
