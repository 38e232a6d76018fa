// Right: looks for events each 50 ms, which is slower than it need be, and within what the README allows.
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
	lines := make(chan *feedv1.ChatMessage)
	var end error
	go func() {
		defer close(lines)
		for {
			var msg *feedv1.ChatMessage
			if msg, end = stream.Recv(); end != nil {
				return
			}
			select {
			case lines <- msg:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case msg, ok := <-lines:
			if !ok && !errors.Is(end, io.EOF) {
				return end
			}
			if !ok {
				for topic, sub := range joined {
					delete(joined, topic)
					sub.Close()
					if err := sendWaiting(stream, sub); err != nil {
						return err
					}
				}
				return nil
			}
			verb, topic, err := command(msg)
			if err != nil {
				return err
			}
			if sub := joined[topic]; verb == "/leave" && sub != nil {
				delete(joined, topic)
				sub.Close()
			} else if verb == "/join" && sub == nil {
				joined[topic] = s.broker.Subscribe(topic)
			}
		case <-tick.C:
			for _, sub := range joined {
				if err := sendWaiting(stream, sub); err != nil {
					return err
				}
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func sendWaiting(stream chatServer, sub *Subscription) error {
	for {
		select {
		case ev, ok := <-sub.C:
			if !ok {
				return nil
			}
			if err := stream.Send(says(ev)); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}
