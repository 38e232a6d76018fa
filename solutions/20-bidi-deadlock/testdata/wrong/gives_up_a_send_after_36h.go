// Wrong: cancels when a Send has waited for 36 hours: no deadline, and yet a limit.
//
// Fails: TestPipelineSetsNoTimeLimit
// Says: returned after 36h0m0s
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() {
		for msg := range msgs {
			t := time.AfterFunc(36*time.Hour, cancel)
			err := stream.Send(&feedv1.ChatMessage{Text: msg})
			t.Stop()
			if err != nil {
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
