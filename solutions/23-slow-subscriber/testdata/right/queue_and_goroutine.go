// Right: has a slice for a queue, and a goroutine for each subscription that Close ends.
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type broker struct {
	n    int
	mu   sync.Mutex
	subs map[*Subscription]string
}

func newBroker(n int) *broker { return &broker{n: n, subs: map[*Subscription]string{}} }

type Subscription struct {
	C     <-chan *feedv1.Event
	b     *broker
	c     chan *feedv1.Event
	more  chan struct{}
	gone  chan struct{}
	once  sync.Once
	queue []*feedv1.Event // guarded by b.mu; the first one may be on its way
	err   error
}

func (b *broker) Subscribe(topic string) *Subscription {
	c := make(chan *feedv1.Event)
	s := &Subscription{C: c, b: b, c: c, more: make(chan struct{}, 1), gone: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs[s] = topic
	go s.pump()
	return s
}

func (s *Subscription) pump() {
	defer close(s.c)
	for {
		s.b.mu.Lock()
		n, err := len(s.queue), s.err
		var first *feedv1.Event
		if n > 0 {
			first = s.queue[0]
		}
		s.b.mu.Unlock()
		if n == 0 && err != nil {
			return
		}
		if n == 0 {
			select {
			case <-s.more:
			case <-s.gone:
				return
			}
			continue
		}
		select {
		case s.c <- first:
		case <-s.gone:
			return
		}
		s.b.mu.Lock()
		s.queue = s.queue[1:]
		s.b.mu.Unlock()
	}
}

func (b *broker) Publish(ev *feedv1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s, topic := range b.subs {
		if topic != ev.GetTopic() {
			continue
		}
		if len(s.queue) == b.n {
			s.err = ErrTooSlow
			delete(b.subs, s)
		} else {
			s.queue = append(s.queue, ev)
		}
		select {
		case s.more <- struct{}{}:
		default:
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
	defer s.b.mu.Unlock()
	delete(s.b.subs, s)
	s.once.Do(func() { close(s.gone) })
}
