// Right: keeps a subscription that was too slow in its list, until Close.
package main

import (
	"sync"
	"sync/atomic"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type broker struct {
	n    int
	mu   sync.Mutex
	subs atomic.Pointer[[]*Subscription]
}

func newBroker(n int) *broker {
	b := &broker{n: n}
	b.subs.Store(&[]*Subscription{})
	return b
}

type Subscription struct {
	C     <-chan *feedv1.Event
	b     *broker
	topic string
	mu    sync.Mutex
	c     chan *feedv1.Event
	over  bool
	err   error
}

func (b *broker) change(add, del *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var next []*Subscription
	for _, s := range *b.subs.Load() {
		if s != del {
			next = append(next, s)
		}
	}
	if add != nil {
		next = append(next, add)
	}
	b.subs.Store(&next)
}

func (b *broker) Subscribe(topic string) *Subscription {
	c := make(chan *feedv1.Event, b.n)
	s := &Subscription{C: c, b: b, topic: topic, c: c}
	b.change(s, nil)
	return s
}

func (b *broker) Publish(ev *feedv1.Event) {
	for _, s := range *b.subs.Load() {
		if s.topic != ev.GetTopic() {
			continue
		}
		s.mu.Lock()
		if !s.over {
			select {
			case s.c <- ev:
			default:
				s.over, s.err = true, ErrTooSlow
				close(s.c)
			}
		}
		s.mu.Unlock()
	}
}

func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Subscription) Close() {
	s.b.change(nil, s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over = true
		close(s.c)
	}
}
