// Right: three goroutines with channels of eight slots between msgs, stream and reply; all of them hear of the end.
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// pipeline sends msgs on one stream and calls reply with each reply, in the
// order in which they come, until the server ends the stream. How the server
// ended it, the error says: nil for OK, the server's status otherwise.
func pipeline(ctx context.Context, client feedv1.FeedServiceClient, msgs iter.Seq[string], reply func(string)) error {
	var goroutines sync.WaitGroup
	defer goroutines.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	next := make(chan string, 8)
	goroutines.Go(func() {
		defer close(next)
		for msg := range msgs {
			select {
			case next <- msg:
			case <-ctx.Done():
				return
			}
		}
	})
	goroutines.Go(func() {
		for msg := range next {
			if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
				return
			}
		}
		if ctx.Err() == nil {
			stream.CloseSend()
		}
	})
	replies := make(chan string, 8)
	var end error
	goroutines.Go(func() {
		defer close(replies)
		for {
			msg, err := stream.Recv()
			if err != nil {
				end = err
				return
			}
			select {
			case replies <- msg.GetText():
			case <-ctx.Done():
				end = ctx.Err()
				return
			}
		}
	})
	for text := range replies {
		reply(text)
	}
	if !errors.Is(end, io.EOF) {
		return end
	}
	return nil
}
