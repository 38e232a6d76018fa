// Right: has no goroutine for a topic: reflect.Select waits for any number of channels.
package main

import (
	"errors"
	"io"
	"reflect"

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
	subs := map[string]*Subscription{}
	defer func() {
		for _, sub := range subs {
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
	recv := func(c any) reflect.SelectCase {
		return reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c)}
	}
	const first = 2
	cases := []reflect.SelectCase{recv(stream.Context().Done()), recv(lines)}
	topics := []string{"", ""} // of the cases
	drop := func(i int) {
		topics = append(topics[:i], topics[i+1:]...)
		cases = append(cases[:i], cases[i+1:]...)
	}
	for {
		i, v, ok := reflect.Select(cases)
		switch {
		case i == 0:
			return stream.Context().Err()
		case i == 1 && !ok && !errors.Is(end, io.EOF):
			return end
		case i == 1 && !ok:
			for topic, sub := range subs {
				delete(subs, topic)
				sub.Close()
				for ev := range sub.C {
					if err := stream.Send(says(ev)); err != nil {
						return err
					}
				}
			}
			return nil
		case i >= first && !ok: // the topic has ended
			if sub := subs[topics[i]]; sub != nil {
				delete(subs, topics[i])
				sub.Close()
			}
			drop(i)
		case i >= first:
			if err := stream.Send(says(v.Interface().(*feedv1.Event))); err != nil {
				return err
			}
		default:
			verb, topic, err := command(v.Interface().(*feedv1.ChatMessage))
			if err != nil {
				return err
			}
			if sub := subs[topic]; verb == "/leave" && sub != nil {
				delete(subs, topic)
				sub.Close()
				for i := first; i < len(topics); i++ {
					if topics[i] == topic {
						drop(i) // and what was accepted before
						break
					}
				}
			} else if verb == "/join" && sub == nil {
				sub := s.broker.Subscribe(topic)
				subs[topic] = sub
				topics = append(topics, topic)
				cases = append(cases, recv(sub.C))
			}
		}
	}
}
