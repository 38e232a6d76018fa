// Wrong: calls msgs and reply never at the same time: a reply waits for the next message.
//
// Fails: TestPipelineHandsOnWhatIsThere
// Says: 1s after the call 0 of 20 messages were sent
// Says: Recv has returned 1 of them, and reply has had 0
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
	mu := make(chan struct{}, 1)
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	wg.Go(func() {
		mu <- struct{}{}
		defer func() { <-mu }()
		for msg := range msgs {
			<-mu
			err := stream.Send(&feedv1.ChatMessage{Text: msg})
			mu <- struct{}{}
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
		mu <- struct{}{}
		reply(m.GetText())
		<-mu
	}
}
