// Right: copies the list; each subscription has a lock of its own.
package main

import (
	"slices"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type broker struct {
	n    int
	mu   sync.RWMutex
	subs []*Subscription
}

func newBroker(n int) *broker { return &broker{n: n} }

type Subscription struct {
	C     <-chan *feedv1.Event
	b     *broker
	topic string

	mu    sync.Mutex
	c     chan *feedv1.Event
	ended bool
	err   error
}

func (b *broker) Subscribe(topic string) *Subscription {
	c := make(chan *feedv1.Event, b.n)
	s := &Subscription{C: c, b: b, topic: topic, c: c}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs = append(b.subs, s)
	return s
}

func (b *broker) Publish(ev *feedv1.Event) {
	b.mu.RLock()
	subs := slices.Clone(b.subs)
	b.mu.RUnlock()
	for _, s := range subs {
		if s.topic == ev.GetTopic() && !s.put(ev) {
			b.forget(s)
		}
	}
}

// put reports whether the subscription goes on.
func (s *Subscription) put(ev *feedv1.Event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return false
	}
	select {
	case s.c <- ev:
		return true
	default:
		s.ended, s.err = true, ErrTooSlow
		close(s.c)
		return false
	}
}

func (b *broker) forget(s *Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs = slices.DeleteFunc(b.subs, func(other *Subscription) bool { return other == s })
}

func (s *Subscription) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *Subscription) Close() {
	s.b.forget(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ended {
		s.ended = true
		close(s.c)
	}
}
