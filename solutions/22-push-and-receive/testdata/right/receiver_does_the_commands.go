// Right: the goroutine that receives subscribes, and a flag under the lock says when Chat is over.
package main

import (
	"context"
	"errors"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker
}

// the receiving goroutine carries out the commands itself; the handler sends
func (s *server) Chat(stream chatServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	events := make(chan *feedv1.Event)
	joined := map[string]*Subscription{}
	var mu sync.Mutex
	over := false
	var readers sync.WaitGroup
	closeAll := func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		for t, sub := range joined {
			delete(joined, t)
			sub.Close()
		}
	}
	defer closeAll()
	errc := make(chan error, 1)
	go func() {
		for {
			msg, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				closeAll()
				readers.Wait()
				close(events)
				return
			}
			if err != nil {
				errc <- err
				return
			}
			verb, topic, err := command(msg)
			if err != nil {
				errc <- err
				return
			}
			mu.Lock()
			if over {
				mu.Unlock()
				return
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
			mu.Unlock()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-errc:
			return err
		case ev, ok := <-events:
			if !ok {
				return ctx.Err()
			}
			if err := stream.Send(says(ev)); err != nil {
				return err
			}
		}
	}
}
