// Wrong: Publish leaves the event to a goroutine, which finds subscribers who came later.
//
// Fails: TestSubscribersGetTheEventsOfTheirTopic
// Says: one subscriber received Event{id:"2"
// Says: (it subscribed after Publish of event
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type broker struct {
	n int

	inMu  sync.Mutex
	inbox []*feedv1.Event

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
	b.inMu.Lock()
	defer b.inMu.Unlock()
	b.inbox = append(b.inbox, ev)
	if len(b.inbox) == 1 {
		go b.deliver()
	}
}

func (b *broker) deliver() {
	for {
		b.inMu.Lock()
		ev := b.inbox[0]
		b.inMu.Unlock()
		b.hand(ev)
		b.inMu.Lock()
		b.inbox = b.inbox[1:]
		if len(b.inbox) == 0 {
			b.inbox = nil
			b.inMu.Unlock()
			return
		}
		b.inMu.Unlock()
	}
}

func (b *broker) hand(ev *feedv1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.topics[ev.GetTopic()] {
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
