// Wrong: has all messages in memory before it sends one.
//
// Fails: TestPipelineDoesNotLock
// Says: pipeline had taken 17 messages, and Send had taken over 0 of them: it held 17, in hand and in queues, want at most 16
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"slices"
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
	all := slices.Collect(msgs)
	sender.Go(func() {
		for _, msg := range all {
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
