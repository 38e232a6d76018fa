// Right: the handler receives, one goroutine sends, and is awaited: a line is heard while Send waits.
package main

import (
	"context"
	"errors"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server holds chats in which clients join and leave the topics of its broker.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker
}

// Chat does what its client says, and sends the events of the topics that the
// client has joined. On the client's half-close it sends what it owes.
func (s *server) Chat(stream chatServer) (err error) {
	ctx, cancel := context.WithCancel(stream.Context())
	events := make(chan *feedv1.Event)
	joined := map[string]*Subscription{}
	var readers sync.WaitGroup
	sent := make(chan error, 1)
	go func() {
		for ev := range events {
			if err := stream.Send(says(ev)); err != nil {
				cancel() // the end of the stream ends Recv, too
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	defer func() {
		if err != nil {
			cancel()
		}
		for _, sub := range joined {
			sub.Close()
		}
		readers.Wait()
		close(events)
		if e := <-sent; err == nil {
			err = e
		}
		cancel()
	}()
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		verb, topic, err := command(msg)
		if err != nil {
			return err
		}
		if sub := joined[topic]; verb == "/leave" && sub != nil {
			delete(joined, topic)
			sub.Close()
		} else if verb == "/join" && sub == nil {
			sub := s.broker.Subscribe(topic)
			joined[topic] = sub
			readers.Go(func() {
				for ev := range sub.C {
					select {
					case events <- ev:
					case <-ctx.Done():
						return
					}
				}
			})
		}
	}
}
