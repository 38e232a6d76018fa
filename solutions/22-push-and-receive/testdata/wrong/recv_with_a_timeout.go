// Wrong: gives Recv a second, and then calls it anew while the first call still waits.
//
// Fails: TestAnEventGoesOutWhileTheClientIsSilent
// Says: had not returned: that is for one goroutine at a time
package main

import (
	"errors"
	"io"
	"time"

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
	defer func() {
		for _, sub := range joined {
			sub.Close()
		}
	}()
	type result struct {
		msg *feedv1.ChatMessage
		err error
	}
	for {
		got := make(chan result, 1)
		go func() {
			msg, err := stream.Recv()
			got <- result{msg, err}
		}()
		select {
		case r := <-got:
			if errors.Is(r.err, io.EOF) {
				return nil
			}
			if r.err != nil {
				return r.err
			}
			verb, topic, err := command(r.msg)
			if err != nil {
				return err
			}
			if sub := joined[topic]; verb == "/leave" && sub != nil {
				sub.Close()
				delete(joined, topic)
			} else if verb == "/join" && sub == nil {
				joined[topic] = s.broker.Subscribe(topic)
			}
		case <-time.After(50 * time.Millisecond):
		}
		for _, sub := range joined {
			select {
			case ev, ok := <-sub.C:
				if ok {
					if err := stream.Send(says(ev)); err != nil {
						return err
					}
				}
			default:
			}
		}
	}
}
