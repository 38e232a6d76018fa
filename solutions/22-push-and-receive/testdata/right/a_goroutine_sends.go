// Right: a goroutine sends, and a reader closes its subscription when the topic has ended, once.
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

type heard struct {
	msg *feedv1.ChatMessage
	err error
}

func pump(stream chatServer) <-chan heard {
	ch := make(chan heard)
	go func() {
		for {
			msg, err := stream.Recv()
			select {
			case ch <- heard{msg, err}:
			case <-stream.Context().Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return ch
}

func (s *server) Chat(stream chatServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	in := pump(stream)
	out := make(chan *feedv1.Event)
	sent := make(chan error, 1)
	go func() {
		for {
			var ev *feedv1.Event
			var ok bool
			select {
			case ev, ok = <-out:
			case <-ctx.Done():
				return
			}
			if !ok {
				sent <- nil
				return
			}
			if err := stream.Send(says(ev)); err != nil {
				sent <- err
				return
			}
		}
	}()
	type seat struct {
		sub  *Subscription
		once sync.Once
	}
	joined := map[string]*seat{}
	var readers sync.WaitGroup
	closeAll := func() {
		for t, st := range joined {
			delete(joined, t)
			st.once.Do(st.sub.Close)
		}
	}
	defer func() {
		cancel()
		closeAll()
		readers.Wait()
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-sent:
			return err
		case h := <-in:
			if errors.Is(h.err, io.EOF) {
				in = nil
				closeAll()
				go func() { readers.Wait(); close(out) }()
				continue
			}
			if h.err != nil {
				return h.err
			}
			verb, topic, err := command(h.msg)
			if err != nil {
				return err
			}
			st := joined[topic]
			if verb == "/leave" && st != nil {
				delete(joined, topic)
				st.once.Do(st.sub.Close)
			}
			if verb == "/join" && st == nil {
				st := &seat{sub: s.broker.Subscribe(topic)}
				joined[topic] = st
				readers.Go(func() {
					for ev := range st.sub.C {
						select {
						case out <- ev:
						case <-ctx.Done():
							return
						}
					}
					st.once.Do(st.sub.Close) // the topic has ended
				})
			}
		}
	}
}
