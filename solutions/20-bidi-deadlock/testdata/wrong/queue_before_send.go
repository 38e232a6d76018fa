// Wrong: a queue without a bound takes the messages while Send waits.
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
	var goroutines sync.WaitGroup
	defer goroutines.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	queue := make(chan string, 100_000)
	goroutines.Go(func() {
		defer close(queue)
		for msg := range msgs {
			select {
			case queue <- msg:
			case <-ctx.Done():
				return
			}
		}
	})
	goroutines.Go(func() {
		for msg := range queue {
			if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
				cancel()
				return
			}
		}
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
