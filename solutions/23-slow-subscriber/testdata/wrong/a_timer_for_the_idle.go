// Wrong: has a timer, and ends who has received nothing for three hours.
//
// Fails: TestAQueueOfNTakesN
// Says: receives only every other day, while its queue has room, (n is 10) has not been due more than n events, and Err says: the subscriber is too slow
package main

import (
	"sync"
	"time"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type broker struct {
	n int

	mu     sync.Mutex
	topics map[string]map[*Subscription]bool
}

func newBroker(n int) *broker {
	return &broker{n: n, topics: map[string]map[*Subscription]bool{}}
}

type Subscription struct {
	C <-chan *feedv1.Event

	b     *broker
	topic string
	c     chan *feedv1.Event
	err   error
	timer *time.Timer
}

func (b *broker) Subscribe(topic string) *Subscription {
	c := make(chan *feedv1.Event, b.n)
	s := &Subscription{C: c, b: b, topic: topic, c: c}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.topics[topic] == nil {
		b.topics[topic] = map[*Subscription]bool{}
	}
	b.topics[topic][s] = true
	return s
}

func (b *broker) Publish(ev *feedv1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.topics[ev.GetTopic()] {
		select {
		case s.c <- ev:
		default:
			b.end(s, ErrTooSlow)
		}
		if len(s.c) == 1 {
			if s.timer != nil {
				s.timer.Stop()
			}
			s.timer = time.AfterFunc(3*time.Hour, func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				if len(s.c) > 0 {
					b.end(s, ErrTooSlow)
				}
			})
		}
	}
}

func (b *broker) end(s *Subscription, err error) {
	subs := b.topics[s.topic]
	if !subs[s] {
		return
	}
	delete(subs, s)
	if len(subs) == 0 {
		delete(b.topics, s.topic)
	}
	s.err = err
	close(s.c)
}

func (s *Subscription) Err() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.err
}

func (s *Subscription) Close() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.end(s, nil)
}
