// Wrong: opens no stream if there are no messages.
//
// Fails: TestPipelineKnowsNoNumberOfReplies
// Says: before the server had ended
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	next, stop := iter.Pull(msgs)
	first, ok := next()
	if !ok {
		stop()
		return nil
	}
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}

	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() {
		defer stop()
		for msg, ok := first, ok; ok; msg, ok = next() {
			if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
				return
			}
		}
		stream.CloseSend()
	})
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		reply(m.GetText())
	}
}
