// Wrong: receives, and then sends what is there: events wait for the client's next line.
//
// Fails: TestAnEventGoesOutWhileTheClientIsSilent
// Says: blocked in Recv at answer.go:
// Says: when it had said something: late by 1m0.01s
package main

import (
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
	joined := map[string]*Subscription{}
	leave := func(topic string) {
		if sub := joined[topic]; sub != nil {
			delete(joined, topic)
			sub.Close()
		}
	}
	defer func() {
		for topic := range joined {
			leave(topic)
		}
	}()
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			for _, sub := range joined {
				sub.Close()
				for ev := range sub.C {
					if err := stream.Send(says(ev)); err != nil {
						return err
					}
				}
			}
			clear(joined)
			return nil
		}
		if err != nil {
			return err
		}
		verb, topic, err := command(msg)
		if err != nil {
			return err
		}
		if verb == "/leave" {
			leave(topic)
		} else if joined[topic] == nil {
			joined[topic] = s.broker.Subscribe(topic)
		}
		for _, sub := range joined {
			for more := true; more; {
				select {
				case ev, ok := <-sub.C:
					if more = ok; ok {
						if err := stream.Send(says(ev)); err != nil {
							return err
						}
					}
				default:
					more = false
				}
			}
		}
	}
}
