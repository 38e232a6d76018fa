// Wrong: receives when a Send has blocked for 100 ms, and not before.
//
// Fails: TestPipelineHandsOnWhatIsThere
// Says: 1s after the call 0 of 20 messages were sent; the server has read 0 and sent 1 replies; Recv has returned 0 of them
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

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
	var once sync.Once
	done := make(chan error, 1)
	start := func() {
		once.Do(func() {
			go func() {
				done <- receive(stream, reply)
			}()
		})
	}
	for msg := range msgs {
		blocked := time.AfterFunc(100*time.Millisecond, start)
		err := stream.Send(&feedv1.ChatMessage{Text: msg})
		blocked.Stop()
		if err != nil {
			break
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
