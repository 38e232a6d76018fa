// Wrong: a channel with ten places, and one reply in the hand of its receiving goroutine.
//
// Fails: TestSessionLeavesToTheServerWhatNobodyReads
// Says: had 12 replies from Recv that nobody had taken, want at most 10
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
	var both sync.WaitGroup
	defer both.Wait()
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	queue := make(chan string, 10)
	var end error
	both.Go(func() {
		defer close(queue)
		for {
			var msg *feedv1.ChatMessage
			if msg, end = stream.Recv(); end != nil {
				return
			}
			select {
			case queue <- msg.GetText():
			case <-ctx.Done():
				end = ctx.Err()
				return
			}
		}
	})
	both.Go(func() {
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
	})
	for text := range queue {
		select {
		case out <- text:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if errors.Is(end, io.EOF) {
		return nil
	}
	return end
}
