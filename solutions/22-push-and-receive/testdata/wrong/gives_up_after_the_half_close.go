// Wrong: gives what is owed at the half-close five seconds, and returns nil.
//
// Fails: TestASlowClientLosesNothing
// Says: and then EOF: Chat had returned: <nil>
package main

import (
	"context"
	"errors"
	"io"
	"sync"
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
	ctx, cancel := context.WithCancel(stream.Context())
	msgs := make(chan *feedv1.ChatMessage)
	var recvErr error // read after msgs is closed
	go func() {
		defer close(msgs)
		for {
			msg, err := stream.Recv()
			if err != nil {
				recvErr = err
				return
			}
			select {
			case msgs <- msg:
			case <-ctx.Done():
				recvErr = ctx.Err()
				return
			}
		}
	}()

	events := make(chan *feedv1.Event)
	joined := map[string]*Subscription{}
	var readers sync.WaitGroup
	closeAll := func() {
		for topic, sub := range joined {
			delete(joined, topic)
			sub.Close()
		}
	}
	defer readers.Wait()
	defer closeAll()
	defer cancel()

	lines := msgs
	var limit <-chan time.Time
	for {
		select {
		case <-limit:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case msg, ok := <-lines:
			if !ok {
				if !errors.Is(recvErr, io.EOF) {
					return recvErr
				}
				lines = nil
				limit = time.After(5 * time.Second)
				closeAll()
				go func() { readers.Wait(); close(events) }()
				continue
			}
			verb, topic, err := command(msg)
			if err != nil {
				return err
			}
			sub := joined[topic]
			switch {
			case verb == "/leave" && sub != nil:
				delete(joined, topic)
				sub.Close()
			case verb == "/join" && sub == nil:
				sub = s.broker.Subscribe(topic)
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
		case ev, ok := <-events:
			if !ok {
				return nil
			}
			if err := stream.Send(says(ev)); err != nil {
				return err
			}
		}
	}
}
