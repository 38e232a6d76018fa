// Wrong: half-closes when each message has its reply.
//
// Fails: TestPipelineKnowsNoNumberOfReplies
// Says: a server that answers nothing has not returned
// Says: the server has seen no half-close
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"sync/atomic"

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
	var sent, received atomic.Int64
	var all atomic.Bool
	sender.Go(func() {
		for msg := range msgs {
			if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
				return
			}
			sent.Add(1)
		}
		if all.Store(true); received.Load() == sent.Load() {
			stream.CloseSend()
		}
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
		if n := received.Add(1); all.Load() && n == sent.Load() {
			stream.CloseSend()
		}
	}
}
