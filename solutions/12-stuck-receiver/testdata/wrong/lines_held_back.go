// Wrong: collects lines, and sends what it has every ten seconds.
//
// Fails: TestSessionSaysAllWhileNobodyReadsOut
// Says: said its last line 8.0
// Says: want at most 1s
package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

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
		var held []string
		flush := func() (err error) {
			for _, line := range held {
				if err = stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
					break // the stream has ended; Recv tells how
				}
			}
			held = nil
			return err
		}
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case line, ok := <-in:
				if !ok {
					flush()
					stream.CloseSend()
					return
				}
				held = append(held, line)
			case <-tick.C:
				if flush() != nil {
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
