// Right: a group of its own, in which the first error that counts cancels the rest.
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

	g := group{cancel: cancel}
	g.Go(func() error {
		for msg := range msgs {
			if err := stream.Send(&feedv1.ChatMessage{Text: msg}); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
		}
		return stream.CloseSend()
	})
	g.Go(func() error {
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
	})
	return g.Wait()
}

// errgroup by hand
type group struct {
	wg     sync.WaitGroup
	once   sync.Once
	err    error
	cancel func()
}

func (g *group) Go(f func() error) {
	g.wg.Go(func() {
		if err := f(); err != nil {
			g.once.Do(func() { g.err = err; g.cancel() })
		}
	})
}
func (g *group) Wait() error { g.wg.Wait(); g.cancel(); return g.err }
