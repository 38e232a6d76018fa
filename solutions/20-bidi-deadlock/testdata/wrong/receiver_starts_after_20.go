// Wrong: sends 20 messages before it starts to receive.
//
// Fails: TestPipelineDoesNotLock
// Says: a server that echoes 6 messages of 300000 B has not returned
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"google.golang.org/grpc"

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
	done := make(chan error, 1)
	start := sync.OnceFunc(func() {
		go func() { done <- receive(stream, reply) }()
	})
	n := 0
	for msg := range msgs {
		if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
			break
		}
		if n++; n == 20 {
			start()
		}
	}
	stream.CloseSend()
	start()
	return <-done
}

func receive(stream grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage], reply func(string)) error {
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
