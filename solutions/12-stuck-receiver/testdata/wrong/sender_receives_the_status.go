// Wrong: when Send says io.EOF the sender calls Recv for the reason, and gets a reply that was on its way to the reader.
//
// Fails: TestSessionEndsWithItsServerWhileInStaysOpen
// Says: ends the chat before the first line comes from in
// Says: reply 2, "bye", is missing
package main

import (
	"context"
	"errors"
	"io"
	"log"
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
					if errors.Is(err, io.EOF) {
						_, err = stream.Recv()
					}
					log.Println("send:", err)
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
