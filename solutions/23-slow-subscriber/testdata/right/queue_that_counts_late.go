// Right: its goroutine counts an event as received a moment after it was.
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type broker struct {
	n    int
	mu   sync.Mutex
	subs map[*Subscription]bool
}

func newBroker(n int) *broker { return &broker{n: n, subs: map[*Subscription]bool{}} }

type Subscription struct {
	C <-chan *feedv1.Event

	b     *broker
	topic string
	c     chan *feedv1.Event
	more  chan struct{}
	done  chan struct{}

	queue []*feedv1.Event // [0] may be in the pump's hand
	ended bool
	err   error
	once  sync.Once
}

func (b *broker) Subscribe(topic string) *Subscription {
	c := make(chan *feedv1.Event)
	s := &Subscription{C: c, b: b, topic: topic, c: c, more: make(chan struct{}, 1), done: make(chan struct{})}
	b.mu.Lock()
	b.subs[s] = true
	b.mu.Unlock()
	go s.pump()
	return s
}

func (s *Subscription) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (b *broker) Publish(ev *feedv1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		if s.topic != ev.GetTopic() {
			continue
		}
		if len(s.queue) >= b.n {
			s.err = ErrTooSlow
			s.ended = true
			delete(b.subs, s)
		} else {
			s.queue = append(s.queue, ev)
		}
		s.wake()
	}
}

func (s *Subscription) pump() {
	defer close(s.c)
	for {
		s.b.mu.Lock()
		var ev *feedv1.Event
		if len(s.queue) > 0 {
			ev = s.queue[0]
		}
		ended := s.ended
		s.b.mu.Unlock()
		if ev != nil {
			select {
			case s.c <- ev:
				s.b.mu.Lock()
				s.queue = s.queue[1:]
				s.b.mu.Unlock()
				continue
			case <-s.done:
				return
			}
		}
		if ended {
			return
		}
		select {
		case <-s.more:
		case <-s.done:
			return
		}
	}
}

func (s *Subscription) Err() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.err
}

func (s *Subscription) Close() {
	s.b.mu.Lock()
	delete(s.b.subs, s)
	s.ended = true
	s.b.mu.Unlock()
	s.once.Do(func() { close(s.done) })
}
