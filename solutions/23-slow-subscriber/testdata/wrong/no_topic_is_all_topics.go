// Wrong: hands the events of all topics to who subscribed to the empty one.
//
// Fails: TestSubscribersGetTheEventsOfTheirTopic
// Says: a subscriber of "" received Event{id:"
package main

import (
	"sync"

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
	b.hand(b.topics[ev.GetTopic()], ev)
	if ev.GetTopic() != "" {
		b.hand(b.topics[""], ev) // no topic: all of them
	}
}

func (b *broker) hand(subs map[*Subscription]bool, ev *feedv1.Event) {
	for s := range subs {
		select {
		case s.c <- ev:
		default:
			b.end(s, ErrTooSlow)
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
