package main

import (
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
	for {
		// TODO: a client may be silent for hours. Who sends meanwhile?
		msg, err := stream.Recv()
		if err != nil {
			return err // TODO: is every end an error? What is owed to a client that has half-closed, and to the broker at any end?
		}
		verb, topic, err := command(msg)
		if err != nil {
			return err
		}
		if verb == "/leave" {
			delete(joined, topic) // TODO: who tells the broker?
		} else {
			joined[topic] = s.broker.Subscribe(topic) // TODO: what if the client has joined it before?
		}
		for _, sub := range joined {
			select {
			case ev := <-sub.C: // TODO: what comes out of C when the topic has ended?
				if err := stream.Send(says(ev)); err != nil {
					return err
				}
			default:
			}
		}
	}
}
