package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// soon is how long the check waits for what has to happen. Publish has no time
// at all; the check waits longer, to tell one that is late from one that never
// returns.
const (
	soon  = time.Second
	never = time.Minute
)

// A bench drives a broker without a network.
type bench struct {
	*lab.Lab
	*broker
	n     int            // of the broker
	sent  map[string]int // events of each topic
	pause string         // what is special about the subscribers, for messages
}

func onBench(t *testing.T, n int, body func(*bench), opts ...lab.Option) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		body(&bench{Lab: l, broker: newBroker(n), n: n, sent: map[string]int{}})
	}, opts...)
}

// event is number i of a topic. The first two look the same.
func event(topic string, i int) *feedv1.Event {
	return &feedv1.Event{Id: strconv.Itoa(max(i, 2)), Topic: topic}
}

// publish publishes the next event of a topic.
func (b *bench) publish(topic string) {
	b.Helper()
	time.Sleep(time.Millisecond) // for what was received before to be noticed
	b.sent[topic]++
	i, began := b.sent[topic], time.Now()
	b.Call(fmt.Sprintf("%sPublish of event %d to %q", b.pause, i, topic), never, func() { b.Publish(event(topic, i)) })
	if late := time.Since(began); late > 0 {
		b.Fatalf("%sPublish of event %d to %q returned %v late (its waits for all subscribers together): want 0s, it waits for nobody", b.pause, i, topic, late)
	}
}

// A seat is a subscription and what it is due.
type seat struct {
	*Subscription
	b     *bench
	who   string
	topic string
	since int // the events that were published before it came
	next  int // the number of the event that it is to get next
}

func (b *bench) seat(who, topic string) *seat {
	b.Helper()
	var s *Subscription
	b.Call("Subscribe", soon, func() { s = b.Subscribe(topic) })
	return &seat{Subscription: s, b: b, who: who, topic: topic, since: b.sent[topic], next: b.sent[topic] + 1}
}

// receive returns what C gives next, and false if that is its end.
func (s *seat) receive(what string) (*feedv1.Event, bool) {
	s.b.Helper()
	select {
	case ev, ok := <-s.C:
		return ev, ok
	case <-time.After(soon):
		s.b.Fatalf("%s%d events were published to %q (n is %d); %s waits for %s, and after %v C has given nothing and is not closed",
			s.b.pause, s.b.sent[s.topic], s.topic, s.b.n, s.who, what, soon)
		return nil, false
	}
}

// wants receives k events.
func (s *seat) wants(k int) {
	s.b.Helper()
	for range k {
		ev, ok := s.receive("event " + strconv.Itoa(s.next))
		if !ok {
			s.b.Fatalf("%s watches %q (n is %d) and was due event %d of %d, but C was closed, and Err says: %v", s.who, s.topic, s.b.n, s.next, s.b.sent[s.topic], s.Err())
		}
		if want := event(s.topic, s.next); lab.Text(ev) != lab.Text(want) {
			s.b.Fatalf("%s received %s, want %s (it subscribed after Publish of event %d to %q)", s.who, lab.Text(ev), lab.Text(want), s.since, s.topic)
		}
		s.next++
	}
}

// wantsNil wants Err to say that nothing is wrong.
func (s *seat) wantsNil(when string) {
	s.b.Helper()
	if err := s.Err(); err != nil {
		s.b.Fatalf("%s (n is %d) %s, and Err says: %v, want: <nil>", s.who, s.b.n, when, err)
	}
}

// wantsEnd wants C to be closed.
func (s *seat) wantsEnd(want error) {
	s.b.Helper()
	ev, ok := s.receive("C to be closed")
	err := s.Err()
	switch {
	case ok:
		s.b.Fatalf("%d events were published to %q (n is %d), and C of %s gave more than it may, %s: want C closed",
			s.b.sent[s.topic], s.topic, s.b.n, s.who, lab.Text(ev))
	case !errors.Is(err, want):
		s.b.Fatalf("C of %s (n is %d) was closed, and at that moment Err said: %v, want: %v", s.who, s.b.n, err, want)
	}
}

func (s *seat) close() {
	s.b.Helper()
	s.b.Call("Close", soon, s.Close)
	s.who = "a subscription that was closed"
}

func TestSubscribersGetTheEventsOfTheirTopic(t *testing.T) {
	onBench(t, 100, func(b *bench) {
		b.publish("alerts") // for nobody
		one, other := b.seat("one subscriber", "alerts"), b.seat("another subscriber", "alerts")
		for range 20 {
			time.Sleep(time.Millisecond)
			b.Call("Publish of 100 events in a row", soon, func() {
				for range 100 {
					b.sent["alerts"]++
					b.Publish(event("alerts", b.sent["alerts"]))
				}
				time.Sleep(time.Millisecond) // what Publish began comes first
			})
			one.wants(100)
			other.wants(100)
		}
		all := []*seat{one, other, b.seat("a subscriber who came later", "alerts")}
		for _, topic := range []string{"deploys", "", "*", "alert", "Alerts"} {
			all = append(all, b.seat("a subscriber of "+strconv.Quote(topic), topic))
		}
		b.publish("alerts")
		for _, s := range all {
			if s.topic != "alerts" {
				b.publish(s.topic)
			}
			s.wants(1)
			s.wantsNil("has received everything")
		}
		for _, s := range all {
			s.close()
		}
	})
	onBench(t, 100, func(b *bench) { // who comes right after an event does not get it
		for i := range 100 {
			topic := "topic " + strconv.Itoa(i)
			b.publish(topic)
			b.publish(topic)
			s := b.seat("one subscriber", topic)
			b.publish(topic)
			s.wants(1)
			s.close()
		}
	})
}

func TestPublishWaitsForNobody(t *testing.T) {
	onBench(t, 10, func(b *bench) {
		b.pause = "ten subscribers have stopped receiving (n is 10), two receive; "
		before := b.seat("a subscriber who receives", "alerts")
		var all []*seat
		for range 10 {
			all = append(all, b.seat("a stalled subscriber", "alerts"))
		}
		after := b.seat("a subscriber who receives", "alerts")
		deploys := b.seat("a subscriber of another topic", "deploys")
		for range 50 {
			time.Sleep(10 * time.Millisecond)
			b.publish("alerts")
			before.wants(1)
			after.wants(1)
		}
		b.publish("deploys")
		deploys.wants(1)
		fresh := b.seat("a subscriber who came afterwards", "alerts")
		b.publish("alerts")
		for _, s := range []*seat{before, after, fresh} {
			s.wants(1)
			s.wantsNil("has received everything, other subscribers have not")
		}
		for _, s := range append(all, before, after, deploys, fresh) {
			s.close()
		}
	})
}

func TestAQueueOfNTakesN(t *testing.T) {
	for _, n := range []int{10, 1, 2} {
		onBench(t, n, func(b *bench) {
			s := b.seat("a subscriber who receives only every other day, while its queue has room,", "alerts")
			for range 3 {
				for i := range n {
					b.publish("alerts")
					if i == n/2 {
						time.Sleep(48 * time.Hour)
					}
				}
				s.wantsNil("has not been due more than n events")
				s.wants(n)
			}
			s.close()
		}, lab.Lasts(150*time.Hour))
	}
}

func TestAFullQueueEndsAsTooSlow(t *testing.T) {
	for _, n := range []int{10, 1, 2} {
		for _, more := range []int{1, 7} {
			onBench(t, n, func(b *bench) {
				s := b.seat("the stalled subscriber", "alerts")
				for range n + more {
					b.publish("alerts")
				}
				time.Sleep(time.Minute)
				s.wants(1)
				b.publish("alerts") // comes too late, although there is room
				s.wants(n - 1)      // what was accepted is delivered
				s.wantsEnd(ErrTooSlow)
				s.close()
				s.who = "a subscription that ended as too slow, and on which Close was called later,"
				s.wantsEnd(ErrTooSlow)
			})
		}
	}
}

// The receiver asks at the moment when it sees the end, so often that it is
// the first sometimes.
func TestTheReasonIsThereAtTheEnd(t *testing.T) {
	onBench(t, 1, func(b *bench) {
		for range 300 {
			s := b.seat("a subscriber", "alerts")
			b.sent["alerts"] += 2
			go s.Err() // at any time; -race finds one that reads what Publish writes
			b.Publish(event("alerts", s.next))
			b.Publish(event("alerts", s.next+1))
			s.wants(1)
			s.wantsEnd(ErrTooSlow)
			s.close()
		}
	})
}

func TestCloseEndsASubscription(t *testing.T) {
	const n = 3
	for publish := range n + 1 {
		onBench(t, n, func(b *bench) {
			s, other := b.seat("a subscriber", "alerts"), b.seat("another subscriber", "alerts")
			for range publish {
				b.publish("alerts")
				other.wants(1)
			}
			s.close()
			s.close()
			s.wantsNil("has room for all that it was due")
			time.Sleep(soon)
			b.publish("alerts")
			other.wants(1)
			if got := drain(s.Subscription); got > publish {
				b.Fatalf("a subscription had %d events when it was closed, and C gave %d", publish, got)
			}
			s.wantsEnd(nil)
			b.publish("alerts")
			other.wants(1)
			other.close()
		})
	}
	onBench(t, n, func(b *bench) { // while its receiver waits
		s := b.seat("a subscriber", "alerts")
		for range 4 {
			go func() {
				time.Sleep(time.Millisecond)
				b.Call("Close, in four goroutines at once,", soon, s.Close)
			}()
		}
		s.wantsEnd(nil)
		time.Sleep(time.Millisecond)
	})
}

// Two goroutines publish without a pause while others come and go. With one
// processor the scheduler changes over each 10 ms, in the middle of a Publish
// nearly always; with more they run at the same time.
func TestCloseWhilePublishing(t *testing.T) {
	const publishers, atLeast, atMost, seats, draws = 2, 500, 5000, 50, 10
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(4)) // they meet on one processor, too
	for range draws {
		onBench(t, publishers*atMost+1, func(b *bench) {
			var all []*Subscription
			for range seats {
				all = append(all, b.Subscribe("alerts"))
			}
			var sent atomic.Int64
			var closed, panicked atomic.Bool
			var started, published sync.WaitGroup
			started.Add(publishers)
			ev := event("alerts", 1)
			for range publishers {
				published.Go(func() {
					b.Call("Publish, while others call Publish, Subscribe, Err and Close,", soon, func() {
						defer func() { // one panic says it
							if p := recover(); p != nil && !panicked.Swap(true) {
								panic(p)
							}
						}()
						func() { defer started.Done(); b.Publish(ev) }()
						i := 1
						for last := false; !last && i < atMost; i++ {
							last = i >= atLeast && closed.Load()
							b.Publish(ev)
						}
						sent.Add(int64(i))
					})
				})
			}
			started.Wait()
			for _, s := range all[seats-3:] {
				s.Close()
				fresh := b.Subscribe("alerts")
				fresh.Err()
				fresh.Close()
			}
			closed.Store(true)
			published.Wait()
			if b.Failed() {
				return
			}
			// One more, certainly after a Close.
			b.Call("Publish, while others call Publish, Subscribe, Err and Close,", soon, func() { b.Publish(ev) })
			sent.Add(1)
			got := drain(all[0])
			for _, s := range all[:seats-3] {
				s.Close()
			}
			if want := int(sent.Load()); got != want {
				b.Fatalf("two goroutines published %d events while others called Close; each Publish has returned, and a subscription that lives has got %d of them", want, got)
			}
		})
	}
}

// drain counts what C gives until it gives nothing, or is closed.
func drain(s *Subscription) (k int) {
	for {
		select {
		case _, ok := <-s.C:
			if !ok {
				return k
			}
			k++
		case <-time.After(soon):
			return k
		}
	}
}

// What the broker keeps, the garbage collector cannot take.
func TestTheBrokerForgetsWhatHasEnded(t *testing.T) {
	for _, publish := range []int{3, 5} { // of n = 4
		onBench(t, 4, func(b *bench) {
			held := func() (held []weak.Pointer[feedv1.Event]) {
				s := b.Subscribe("alerts")
				for i := range publish {
					ev := event("alerts", i)
					held = append(held, weak.Make(ev))
					b.Publish(ev)
				}
				s.Close()
				return held
			}()
			time.Sleep(soon)
			runtime.GC()
			kept := 0
			for _, p := range held {
				if p.Value() != nil {
					kept++
				}
			}
			if kept > 0 {
				b.Fatalf("a subscription was closed that had %d events (n is 4), and nobody has it any more; the broker still keeps %d of them", publish, kept)
			}
		})
	}
}

// Ten clients, of which one reads nothing until all is published.
func TestAStalledClientHearsWhy(t *testing.T) {
	const n, events, stalls = 16, 250, 4
	lab.Run(t, func(l *lab.Lab) {
		b := newBroker(n)
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		var streams []grpc.ServerStreamingClient[feedv1.Event]
		var got [10]atomic.Int64
		for i := range got {
			stream := enter(l, ctx, client)
			streams = append(streams, stream)
			if i != stalls {
				go receive(stream, &got[i])
			}
		}
		defer func() {
			if l.Failed() { // lets a Publish go on that waits for it
				go receive(streams[stalls], &got[stalls])
				time.Sleep(time.Minute)
			}
		}()
		for i := range events {
			l.Call(fmt.Sprintf("one of ten clients reads nothing; Publish of event %d", i+1), never, func() { b.Publish(large(i)) })
			time.Sleep(20 * time.Millisecond)
		}
		for i := range got {
			if k := got[i].Load(); i != stalls && k != events {
				l.Fatalf("client %d read as fast as it could and got %d of %d events", i+1, k, events)
			}
		}
		var err error
		l.Call("the stalled client reads again, and its Recv", soon, func() { err = receive(streams[stalls], &got[stalls]) })
		// 128 that Send took, one with which it waited, and the queue.
		if k, want := got[stalls].Load(), int64(128+1+n); k != want || status.Code(err) != codes.ResourceExhausted {
			l.Fatalf("a client read nothing while %d events were published (n is %d); then it got %d events and code %v (%v), want %d and ResourceExhausted",
				events, n, k, status.Code(err), err, want)
		}
	})
}

// receive counts what a client receives until its stream ends.
func receive(stream grpc.ServerStreamingClient[feedv1.Event], got *atomic.Int64) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		got.Add(1)
	}
}

// large has 1 KiB when it is encoded.
func large(i int) *feedv1.Event {
	return &feedv1.Event{Id: strconv.Itoa(100 + i), Topic: "alerts", Body: strings.Repeat("x", 1008)}
}

func enter(l *lab.Lab, ctx context.Context, client feedv1.FeedServiceClient) grpc.ServerStreamingClient[feedv1.Event] {
	l.Helper()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		l.Fatal(err)
	}
	l.Call("a client came, and the answer of Watch", soon, func() { _, err = stream.Header() })
	return stream
}

// A client leaves, while its handler waits for an event or in Send, or has
// been told that it is too slow.
func TestAClientLeavesAndNothingIsLeft(t *testing.T) {
	for _, publish := range []int{0, 140, 300} {
		for _, end := range []string{"cancelled", "reached its deadline", "closed its connection", "lost its connection", "lost its server"} {
			if t.Failed() {
				return
			}
			lab.Run(t, func(l *lab.Lab) {
				b := newBroker(16)
				link := l.NewLink()
				srv := link.Serve(&server{broker: b})
				conn := link.Dial()
				ctx, cancel := context.WithTimeout(l.Context(), 10*time.Second)
				defer cancel()
				stream := enter(l, ctx, feedv1.NewFeedServiceClient(conn))
				for i := range publish {
					l.Call(fmt.Sprintf("the only client reads nothing; Publish of event %d", i+1), soon, func() { b.Publish(large(i)) })
					time.Sleep(time.Millisecond)
				}
				switch end {
				case "cancelled":
					cancel()
				case "reached its deadline":
					<-ctx.Done()
				case "closed its connection":
					conn.Close()
				case "lost its connection":
					link.Cut()
				case "lost its server":
					srv.Stop()
				}
				receive(stream, new(atomic.Int64))
				cancel()
				if leaks := l.Leaks(); len(leaks) > 0 {
					l.Fatalf("a client that had read nothing of %d events %s, and a second later %s", publish, end, strings.Join(leaks, "\n"))
				}
				l.Call("the only client has left; Publish", soon, func() { b.Publish(large(publish)) })
			})
		}
	}
}
