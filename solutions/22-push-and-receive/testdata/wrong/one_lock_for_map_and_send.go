// Wrong: one mutex guards the map and Send: who wants the map waits for a slow client.
//
// Fails: TestASlowClientLosesNothing
// Says: blocked in Lock at answer.go:
package main

import (
	"errors"
	"io"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker broker
}

// one mutex for "the chat's state": the map and the stream
func (s *server) Chat(stream chatServer) error {
	var mu sync.Mutex
	joined := map[string]*Subscription{}
	var wg sync.WaitGroup
	closeAll := func() {
		mu.Lock()
		defer mu.Unlock()
		for t, sub := range joined {
			delete(joined, t)
			sub.Close()
		}
	}
	type in struct {
		msg *feedv1.ChatMessage
		err error
	}
	ch := make(chan in)
	go func() {
		for {
			msg, err := stream.Recv()
			select {
			case ch <- in{msg, err}:
			case <-stream.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	quit := make(chan struct{})
	defer wg.Wait()
	defer closeAll()
	defer close(quit)
	sendErr := make(chan error, 1000)
	for {
		select {
		case <-stream.Context().Done():
			return stream.Context().Err()
		case err := <-sendErr:
			return err
		case i := <-ch:
			if errors.Is(i.err, io.EOF) {
				closeAll()
				wg.Wait()
				select {
				case err := <-sendErr:
					return err
				default:
					return stream.Context().Err()
				}
			}
			if i.err != nil {
				return i.err
			}
			verb, topic, err := command(i.msg)
			if err != nil {
				return err
			}
			mu.Lock()
			sub := joined[topic]
			if verb == "/leave" && sub != nil {
				delete(joined, topic)
				sub.Close()
			}
			if verb == "/join" && sub == nil {
				sub := s.broker.Subscribe(topic)
				joined[topic] = sub
				wg.Go(func() {
					for {
						select {
						case <-quit:
							return
						case ev, ok := <-sub.C:
							if !ok {
								return
							}
							mu.Lock()
							err := stream.Send(says(ev))
							mu.Unlock()
							if err != nil {
								select {
								case sendErr <- err:
								default:
								}
								return
							}
						}
					}
				})
			}
			mu.Unlock()
		}
	}
}
