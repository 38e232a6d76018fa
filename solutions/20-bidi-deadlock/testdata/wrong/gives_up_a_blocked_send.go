// Wrong: cancels when a Send has waited for ten minutes.
//
// Fails: TestPipelineSetsNoTimeLimit
// Says: a server that reads nothing for 30 days returned after 10m0s with
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

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
			clock := time.AfterFunc(10*time.Minute, cancel)
			err := stream.Send(&feedv1.ChatMessage{Text: msg})
			clock.Stop()
			if err != nil {
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
