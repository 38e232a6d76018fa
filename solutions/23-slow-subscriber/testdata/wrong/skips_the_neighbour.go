// Wrong: takes the slow one from the list while it walks along it by index: the next one is skipped.
//
// Fails: TestPublishWaitsForNobody
// Says: ten subscribers have stopped receiving (n is 10), two receive; 12 events were published to "alerts" (n is 10); a subscriber who receives waits for event 12, and after 1s C has given nothing
package main

import (
	"slices"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type broker struct {
	n int

	mu     sync.Mutex
	topics map[string][]*Subscription
}

func newBroker(n int) *broker {
	return &broker{n: n, topics: map[string][]*Subscription{}}
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
	b.topics[topic] = append(b.topics[topic], s)
	return s
}

func (b *broker) Publish(ev *feedv1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := 0; i < len(b.topics[ev.GetTopic()]); i++ {
		s := b.topics[ev.GetTopic()][i]
		select {
		case s.c <- ev:
		default:
			b.end(s, ErrTooSlow)
		}
	}
}

func (b *broker) end(s *Subscription, err error) {
	i := slices.Index(b.topics[s.topic], s)
	if i < 0 {
		return
	}
	b.topics[s.topic] = slices.Delete(b.topics[s.topic], i, i+1)
	if len(b.topics[s.topic]) == 0 {
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
