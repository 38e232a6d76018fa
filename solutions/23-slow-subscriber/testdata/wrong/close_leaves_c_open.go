// Wrong: Close takes the subscription from the list, and its receiver waits for ever.
//
// Fails: TestCloseEndsASubscription
// Says: a subscription that was closed waits for C to be closed, and after 1s C has given nothing and is not closed
package main

import (
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A broker hands each event to the subscriptions of its topic, and waits for
// none of them.
type broker struct {
	n int // events that a subscription holds

	mu     sync.Mutex // guards what follows, and the channels: who sends or closes holds it
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
	err   error              // guarded by b.mu
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
		// Nothing here waits, so the lock is held for a moment only.
		select {
		case s.c <- ev:
		default:
			s.end(ErrTooSlow)
		}
	}
}

// end is called with b.mu held. What is in the channel stays there for the
// receiver; the broker forgets it.
func (s *Subscription) end(err error) {
	places := s.b.topics[s.topic]
	if !places[s] {
		return // it has ended before
	}
	delete(places, s)
	if len(places) == 0 {
		delete(s.b.topics, s.topic)
	}
	s.err = err // before C is closed: then its receiver asks
	close(s.c)
}

// Err says why C was closed: ErrTooSlow, or nil after Close.
func (s *Subscription) Err() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.err
}

// Close gives the place back.
func (s *Subscription) Close() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	delete(s.b.topics[s.topic], s)
}
