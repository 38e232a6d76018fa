// Wrong: empties C into a queue that has no limit.
//
// Fails: TestASlowClientLosesNothing
// Says: out of C that it had not sent, want at most 32
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
func (s *server) Chat(stream chatServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	joined := map[string]*Subscription{}
	var (
		readers sync.WaitGroup
		mu      sync.Mutex
		queue   []*feedv1.Event
		more    = make(chan struct{}, 1)
	)
	closeAll := func() {
		for topic, sub := range joined {
			delete(joined, topic)
			sub.Close()
		}
		readers.Wait()
	}
	defer closeAll()
	defer cancel()
	flush := func() error {
		for {
			mu.Lock()
			if len(queue) == 0 {
				mu.Unlock()
				return nil
			}
			ev := queue[0]
			queue = queue[1:]
			mu.Unlock()
			if err := stream.Send(says(ev)); err != nil {
				return err
			}
		}
	}
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
	for {
		select {
		case msg, ok := <-lines:
			if !ok && !errors.Is(end, io.EOF) {
				return end
			}
			if !ok {
				closeAll()
				return flush()
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
						mu.Lock()
						queue = append(queue, ev)
						mu.Unlock()
						select {
						case more <- struct{}{}:
						default: // the loop knows
						}
					}
				})
			}
		case <-more:
			if err := flush(); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
