// Wrong: sends four, receives four: it counts on a reply for each message.
//
// Fails: TestPipelineKnowsNoNumberOfReplies
// Says: a server that answers nothing has not returned
// Says: blocked in Recv at answer.go:
// Says: meanwhile 4 of 6000 messages were sent
package main

import (
	"context"
	"errors"
	"io"
	"iter"

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
	inFlight := 0
	for msg := range msgs {
		if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
			break
		}
		if inFlight++; inFlight < 4 {
			continue
		}
		for ; inFlight > 0; inFlight-- {
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
	stream.CloseSend()
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
