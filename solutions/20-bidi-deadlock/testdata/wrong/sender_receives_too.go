// Wrong: asks Recv in the sender, too, for the status: it gets a reply, and drops it.
//
// Fails: TestPipelineEndsAsTheServerEnds
// Says: and each goes to reply
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

	errc := make(chan error, 2)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() {
		for msg := range msgs {
			if err := stream.Send(&feedv1.ChatMessage{Text: msg}); err != nil {
				if errors.Is(err, io.EOF) {
					time.Sleep(time.Millisecond) // two calls of Recv at one moment may end in any way
					_, err = stream.Recv()
				} // the docs: RecvMsg tells the status
				if errors.Is(err, io.EOF) {
					err = nil
				}
				errc <- err
				return
			}
		}
		stream.CloseSend()
	})
	wg.Go(func() {
		errc <- func() error {
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
		}()
	})
	return <-errc
}
