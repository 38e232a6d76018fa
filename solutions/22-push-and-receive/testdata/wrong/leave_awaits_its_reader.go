// Wrong: waits at a leave for the goroutine that reads the subscription, which waits for the loop.
//
// Fails: TestALeaveWhileEventsComeIsHeard
// Says: and 100ms later the client had
// Says: blocked receiving from a channel at answer.go:
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
	joined := map[string]*Subscription{}
	read1 := map[*Subscription]chan struct{}{}
	leave := func(topic string) {
		if sub := joined[topic]; sub != nil {
			delete(joined, topic) // what is not in joined has been closed
			sub.Close()
			<-read1[sub]
		}
	}
	// On every way out, in this order: nobody takes events any more, C has an
	// end, and so have those who read it.
	var readers sync.WaitGroup
	defer readers.Wait()
	defer func() { leaveAll(joined, leave) }()
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()

	lines, events := make(chan *feedv1.ChatMessage), make(chan *feedv1.Event)
	var end error // says why lines was closed
	go func() {   // ends when Chat has returned, so Chat cannot wait for it
		defer close(lines)
		for {
			var msg *feedv1.ChatMessage
			if msg, end = stream.Recv(); end != nil {
				return
			}
			select {
			case lines <- msg:
			case <-ctx.Done():
				return
			}
		}
	}()
	for { // the only sender
		select {
		case msg, ok := <-lines:
			if !ok && !errors.Is(end, io.EOF) {
				return end
			}
			if !ok {
				lines = nil // or this case would always be ready
				leaveAll(joined, leave)
				go func() { readers.Wait(); close(events) }()
				continue
			}
			verb, topic, err := command(msg)
			if err != nil {
				return err
			}
			if verb == "/leave" {
				leave(topic)
			} else if joined[topic] == nil {
				sub := s.broker.Subscribe(topic)
				joined[topic] = sub
				done := make(chan struct{})
				read1[sub] = done
				readers.Go(func() { defer close(done); read(ctx, sub, events) })
			}
		case ev, ok := <-events:
			if !ok {
				return nil // half-closed, and all is sent
			}
			if err := stream.Send(says(ev)); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read hands over what a subscription delivers.
func read(ctx context.Context, sub *Subscription, events chan<- *feedv1.Event) {
	for ev := range sub.C {
		time.Sleep(time.Nanosecond) // what the client says is heard first
		select {
		case events <- ev:
		case <-ctx.Done():
			return
		}
	}
}

// leaveAll leaves every topic.
func leaveAll(joined map[string]*Subscription, leave func(topic string)) {
	for topic := range joined {
		leave(topic)
	}
}
