// Wrong: opens the stream again when the connection breaks.
//
// Fails: TestPipelineEndsWithTheConnection
// Says: pipeline opened 2 streams, want one
package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// pipeline sends msgs on one stream and calls reply with each reply, in the
// order in which they come, until the server ends the stream. How the server
// ended it, the error says: nil for OK, the server's status otherwise.
func pipeline(ctx context.Context, client feedv1.FeedServiceClient, msgs iter.Seq[string], reply func(string)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for try := 0; ; try++ {
		stream, err := client.Chat(ctx)
		if err != nil {
			return err
		}

		got := false
		var wg sync.WaitGroup
		wg.Go(func() {
			for msg := range msgs {
				if stream.Send(&feedv1.ChatMessage{Text: msg}) != nil {
					return
				}
			}
			stream.CloseSend()
		})
		err = func() error {
			for {
				m, err := stream.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				got = true
				reply(m.GetText())
			}
		}()
		wg.Wait()
		if status.Code(err) == codes.Unavailable && !got && try < 3 {
			continue
		}
		return err
	}
}
