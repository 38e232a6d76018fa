// Wrong: lets 16 messages be unanswered: it counts on a reply for each message.
//
// Fails: TestPipelineKnowsNoNumberOfReplies
// Says: a server that answers nothing has not returned
// Says: meanwhile 16 of 6000 messages were sent
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
	places := make(chan struct{}, 16)
	sender.Go(func() {
		for msg := range msgs {
			select {
			case places <- struct{}{}:
			case <-ctx.Done():
				return
			}
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
		select {
		case <-places:
		default:
		}
		reply(msg.GetText())
	}
}
