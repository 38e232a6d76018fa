// Wrong: a goroutine sends each message, after the one before it: they all wait in memory.
//
// Fails: TestPipelineDoesNotLock
// Says: it held 17, in hand and in queues, want at most 16
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
		last := make(chan struct{})
		close(last)
		for msg := range msgs {
			before, done := last, make(chan struct{})
			last = done
			sender.Go(func() {
				defer close(done)
				<-before
				stream.Send(&feedv1.ChatMessage{Text: msg})
			})
		}
		<-last
		stream.CloseSend()
	})
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		reply(msg.GetText())
	}
}
