// Wrong: puts a channel with 1,000 places between Recv and the reader.
//
// Fails: TestSessionLeavesToTheServerWhatNobodyReads
// Says: let the server say
// Says: session keeps the rest, want at most 10
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
	queue := make(chan string, 1000)
	handed := make(chan struct{})
	go func() {
		defer close(handed)
		for text := range queue {
			select {
			case out <- text:
			case <-ctx.Done():
				return
			}
		}
	}()
	finish := func() error {
		close(queue)
		<-handed
		return ctx.Err()
	}
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return finish()
		}
		if err != nil {
			finish()
			return err
		}
		select {
		case queue <- msg.GetText():
		case <-ctx.Done():
			return finish()
		}
	}
}
