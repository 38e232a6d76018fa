// Wrong: opens the stream with a context that nobody cancels.
//
// Fails: TestPipelineEndsWithItsContext
// Says: has not returned after 2m0s:
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
	ctx, cancel := context.WithCancel(context.Background())
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
