// Wrong: keeps what nobody reads in a slice of its own, so that the server never waits.
//
// Fails: TestSessionLeavesToTheServerWhatNobodyReads
// Says: had 1000 replies from Recv that nobody had taken, want at most 10
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
					return // the stream has ended; Recv tells how
				}
			case <-ctx.Done():
				return
			}
		}
	})
	queue := make(chan string)
	var writer sync.WaitGroup
	defer writer.Wait()
	writer.Go(func() {
		var all []string
		var over bool
		for !over || len(all) > 0 {
			next, to := "", chan<- string(nil)
			if len(all) > 0 {
				next, to = all[0], out
			}
			select {
			case text, ok := <-queue:
				if !ok {
					queue, over = nil, true
				} else {
					all = append(all, text)
				}
			case to <- next:
				all = all[1:]
			case <-ctx.Done():
				return
			}
		}
	})
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			close(queue)
			writer.Wait()
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		select {
		case queue <- msg.GetText():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
