// Wrong: a queue of a thousand takes the replies, so that a slow reply holds up nobody.
//
// Fails: TestPipelineKeepsToThePaceOfReply
// Says: pipeline had received 17 replies
// Says: it held 17, in hand and in queues, want at most 16 (a reply that takes a minute)
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
	var sender sync.WaitGroup
	defer sender.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	sender.Go(func() {
		for msg := range msgs {
			if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
				return
			}
		}
		stream.CloseSend()
	})
	replies := make(chan string, 1000)
	var end error
	go func() {
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
	}()
	for text := range replies {
		reply(text)
	}
	if !errors.Is(end, io.EOF) {
		return end
	}
	return nil
}
