// Wrong: has a goroutine that sends, and does not wait for it.
//
// Fails: TestTheHalfCloseSendsWhatWasAccepted
// Says: and the client got
package main

import (
	"context"
	"errors"
	"io"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server holds chats in which clients join and leave the topics of its broker.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker
}

// Chat does what its client says, and sends the events of the topics that the
// client has joined. On the client's half-close it sends what it owes.
func (s *server) Chat(stream chatServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	joined := map[string]*Subscription{}
	defer func() {
		for _, sub := range joined {
			sub.Close()
		}
	}()
	events := make(chan *feedv1.Event)
	go func() {
		for {
			select {
			case ev := <-events:
				if stream.Send(says(ev)) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
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
			go func() {
				for ev := range sub.C {
					select {
					case events <- ev:
					case <-ctx.Done():
						return
					}
				}
			}()
		}
	}
}
