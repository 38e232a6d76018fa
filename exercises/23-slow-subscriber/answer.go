package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A broker hands each event to the subscriptions of its topic, and waits for
// none of them.
type broker struct {
	n int // events that a subscription holds

	mu     sync.Mutex
	topics map[string]map[*Subscription]bool
}

func newBroker(n int) *broker {
	return &broker{n: n, topics: map[string]map[*Subscription]bool{}}
}

// A Subscription is a place at one topic.
type Subscription struct {
	C <-chan *feedv1.Event // the events in order; closed at the end

	b     *broker
	topic string
	c     chan *feedv1.Event // C, for the broker
}

// Subscribe gives a place at a topic, until Close.
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

// Publish hands the event to all who have subscribed to its topic.
func (b *broker) Publish(ev *feedv1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.topics[ev.GetTopic()] {
		// TODO: how long does this line take if the subscriber has stopped
		// receiving? Who waits for it, and what is to happen instead?
		s.c <- ev
	}
}

// Err says why C was closed: ErrTooSlow, or nil after Close.
func (s *Subscription) Err() error {
	return nil // TODO
}

// Close gives the place back.
func (s *Subscription) Close() {
	// TODO: who else may be using the channel at this moment? What does the
	// broker know of this subscription afterwards? What does a second call do?
	close(s.c)
}
