// Wrong: receives when the first message is sent: the server may speak first.
//
// Fails: TestPipelineHandsOnWhatIsThere
// Says: 1s after the call 0 of 20 messages were sent
// Says: Recv has returned 0 of them
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
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}

	var wg sync.WaitGroup
	started := make(chan struct{})
	var once sync.Once
	start := func() { once.Do(func() { close(started) }) }
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() {
		defer start()
		for msg := range msgs {
			err := stream.Send(&feedv1.ChatMessage{Text: msg})
			start()
			if err != nil {
				return
			}
		}
		stream.CloseSend()
	})
	<-started
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
