// Wrong: Publish sends to a copy of the list without the lock, and Close closes the channel: a default does not help.
//
// Fails: TestCloseWhilePublishing
// Says: panicked: send on closed channel
package main

import (
	"slices"
	"sync"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A broker hands each event to the subscriptions of its topic, and waits for
// none of them.
type broker struct {
	n int // events that a subscription holds

	mu     sync.Mutex // guards what follows, and the channels: who sends or closes holds it
	topics map[string][]*Subscription
}

func newBroker(n int) *broker {
	return &broker{n: n, topics: map[string][]*Subscription{}}
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
	b.topics[topic] = append(slices.Clone(b.topics[topic]), s)
	return s
}

// Publish hands the event to all who have subscribed to its topic.
func (b *broker) Publish(ev *feedv1.Event) {
	b.mu.Lock()
	all := b.topics[ev.GetTopic()]
	b.mu.Unlock()
	for _, s := range all {
		select {
		case s.c <- ev:
		default:
			b.mu.Lock()
			s.end(ErrTooSlow)
			b.mu.Unlock()
		}
	}
}

// end is called with b.mu held. What is in the channel stays there for the
// receiver; the broker forgets it.
func (s *Subscription) end(err error) {
	places := s.b.topics[s.topic]
	i := slices.Index(places, s)
	if i < 0 {
		return // it has ended before
	}
	s.b.topics[s.topic] = slices.Concat(places[:i], places[i+1:])
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
	s.end(nil)
}
