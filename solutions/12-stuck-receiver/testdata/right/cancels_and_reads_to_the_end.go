// Right: hands over from a channel without a select at its sender, and after a cancel reads that channel to its end.
package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// session is one chat: what comes from in is said, what is heard goes to out.
// It half-closes when in is closed, and closes out when it is done. How the
// chat ended, the error says: nil for OK, the server's status otherwise.
func session(ctx context.Context, client feedv1.FeedServiceClient, in <-chan string, out chan<- string) error {
	defer close(out)
	parent := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	replies, end := make(chan string), make(chan error, 1)
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				end <- err
				close(replies)
				return
			}
			replies <- msg.GetText()
		}
	}()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for {
			select {
			case line, ok := <-in:
				if !ok {
					stream.CloseSend()
					return
				}
				if stream.Send(&feedv1.ChatMessage{Text: line}) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	lost := false
	for text := range replies {
		if lost {
			continue
		}
		select {
		case out <- text:
		case <-ctx.Done():
			lost = true
		}
	}
	cancel()
	<-sent
	err = <-end
	switch {
	case lost:
		return status.FromContextError(parent.Err()).Err()
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}
