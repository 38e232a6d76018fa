// Right: replaces the list at each change; the error is written before the channel is closed, and read without a lock.
package main

import (
	"slices"
	"sync"
	"sync/atomic"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type broker struct {
	n    int
	mu   sync.Mutex // for changes of the list
	subs atomic.Pointer[[]*Subscription]
}

func newBroker(n int) *broker {
	b := &broker{n: n}
	b.subs.Store(new([]*Subscription))
	return b
}

type Subscription struct {
	C     <-chan *feedv1.Event
	b     *broker
	topic string
	slow  atomic.Bool
	mu    sync.Mutex // for c, nil after the end
	c     chan *feedv1.Event
}

func (b *broker) Subscribe(topic string) *Subscription {
	c := make(chan *feedv1.Event, b.n)
	s := &Subscription{C: c, b: b, topic: topic, c: c}
	b.change(func(subs []*Subscription) []*Subscription { return append(subs, s) })
	return s
}

func (b *broker) change(how func([]*Subscription) []*Subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	subs := how(slices.Clone(*b.subs.Load()))
	b.subs.Store(&subs)
}

func (b *broker) Publish(ev *feedv1.Event) {
	for _, s := range *b.subs.Load() {
		if s.topic == ev.GetTopic() {
			s.put(ev)
		}
	}
}

func (s *Subscription) put(ev *feedv1.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		return
	}
	if len(s.c) < s.b.n {
		s.c <- ev // nobody else sends
		return
	}
	s.slow.Store(true)
	s.end()
}

func (s *Subscription) end() {
	if s.c == nil {
		return
	}
	close(s.c)
	s.c = nil
	s.b.change(func(subs []*Subscription) []*Subscription {
		return slices.DeleteFunc(subs, func(other *Subscription) bool { return other == s })
	})
}

func (s *Subscription) Err() error {
	if s.slow.Load() {
		return ErrTooSlow
	}
	return nil
}

func (s *Subscription) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}
