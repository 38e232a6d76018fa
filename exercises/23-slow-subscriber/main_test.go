package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
		b.Fatalf("%sPublish of event %d to %q returned %v late: want 0s, it waits for nobody", b.pause, i, topic, late)
	}
}

// A seat is a subscription and what it is due.
type seat struct {
	*Subscription
	b     *bench
	who   string
	topic string
	next  int // the number of the event that it is to get next
}

func (b *bench) seat(who, topic string) *seat {
	b.Helper()
	var s *Subscription
	b.Call("Subscribe", soon, func() { s = b.Subscribe(topic) })
	return &seat{Subscription: s, b: b, who: who, topic: topic, next: b.sent[topic] + 1}
}

// receive returns what C gives next, and false if that is its end.
func (s *seat) receive() (*feedv1.Event, bool) {
	s.b.Helper()
	select {
	case ev, ok := <-s.C:
		return ev, ok
	case <-time.After(soon):
		s.b.Fatalf("%d events were published to %q (n is %d); %s has received up to event %d, and now C gives nothing for %v and is not closed",
			s.b.sent[s.topic], s.topic, s.b.n, s.who, s.next-1, soon)
		return nil, false
	}
}

// wants receives k events.
func (s *seat) wants(k int) {
	s.b.Helper()
	for range k {
		ev, ok := s.receive()
		if !ok {
			s.b.Fatalf("%s watches %q (n is %d) and was due event %d of %d, but C was closed, and Err says: %v", s.who, s.topic, s.b.n, s.next, s.b.sent[s.topic], s.Err())
		}
		if want := event(s.topic, s.next); lab.Text(ev) != lab.Text(want) {
			s.b.Fatalf("%s received %s, want %s", s.who, lab.Text(ev), lab.Text(want))
		}
		s.next++
	}
}

// wantsEnd wants C to be closed.
func (s *seat) wantsEnd(want error) {
	s.b.Helper()
	ev, ok := s.receive()
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
		one, other, deploys := b.seat("one subscriber", "alerts"), b.seat("another subscriber", "alerts"), b.seat("a third subscriber", "deploys")
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
		for range 3 {
			b.publish("deploys")
			b.publish("alerts")
		}
		deploys.wants(3)
		one.wants(3)
		late := b.seat("a subscriber who came later", "alerts")
		b.publish("alerts")
		late.wants(1)
		one.wants(1)
		other.wants(4)
		for _, s := range []*seat{one, other, deploys, late} {
			if err := s.Err(); err != nil {
				b.Fatalf("%s has received everything, and Err says: %v", s.who, err)
			}
			s.close()
		}
	})
}

func TestPublishWaitsForNobody(t *testing.T) {
	onBench(t, 10, func(b *bench) {
		b.pause = "some subscribers have stopped receiving (n is 10), two receive; "
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
			if err := s.Err(); err != nil {
				b.Fatalf("%s has received everything, another one has not, and Err says to the first: %v", s.who, err)
			}
		}
		for _, s := range append(all, before, after, deploys, fresh) {
			s.close()
		}
	})
}

func TestAQueueOfNTakesN(t *testing.T) {
	for _, n := range []int{10, 1, 2} {
		onBench(t, n, func(b *bench) {
			s := b.seat("a subscriber", "alerts")
			for range 3 {
				for range n {
					b.publish("alerts")
				}
				time.Sleep(time.Hour) // it is slow, but its queue has room for all
				s.wants(n)
			}
			s.close()
		}, lab.Lasts(4*time.Hour))
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
			b.publish("alerts")
			other.wants(1)
			// What it had may come, or not.
			for range publish {
				if _, ok := s.receive(); !ok {
					break
				}
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

// One goroutine publishes without a pause while another one closes. With one
// processor the scheduler changes over each 10 ms, in the middle of a Publish
// nearly always; with more they run at the same time.
func TestCloseWhilePublishing(t *testing.T) {
	const n, seats, draws = 10_000, 50, 10
	for range draws {
		onBench(t, n, func(b *bench) {
			var all []*seat
			for range seats {
				all = append(all, b.seat("a subscriber", "alerts"))
			}
			var closed atomic.Bool
			var published sync.WaitGroup
			sent := 0
			ev := event("alerts", 1)
			started := make(chan bool)
			published.Go(func() {
				b.Call("Publish, while another goroutine calls Close,", soon, func() {
					b.Publish(ev)
					close(started)
					sent = 1
					for last := false; !last && sent < n; sent++ {
						last = closed.Load()
						b.Publish(ev)
					}
				})
			})
			<-started
			for _, s := range all[seats-3:] {
				s.Close()
			}
			closed.Store(true)
			published.Wait()
			if b.Failed() {
				return
			}
			stays := all[seats-4]
			for i := range sent {
				if _, ok := stays.receive(); !ok {
					b.Fatalf("%d events were published while others called Close, and a subscriber who stays received %d", sent, i)
				}
			}
			for _, s := range all[:seats-3] {
				s.Close()
			}
		})
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

// Four publishers, and subscribers who come and go.
func TestManyAtOnce(t *testing.T) {
	onBench(t, 50, func(b *bench) {
		b.seat("a subscriber", "topic 0").close()
		b.publish("topic 0")
		var all sync.WaitGroup
		for p := range 4 {
			topic := "topic " + strconv.Itoa(p%2)
			all.Go(func() {
				b.Call("Publish, among many other calls,", soon, func() {
					for i := range 50 {
						b.Publish(event(topic, i))
					}
				})
			})
			all.Go(func() {
				b.Call("Subscribe, Err and Close, among many other calls,", soon, func() {
					for range 20 {
						s := b.Subscribe(topic)
						runtime.Gosched()
						s.Err()
						s.Close()
					}
				})
			})
		}
		all.Wait()
	})
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
				go func() {
					for _, err := stream.Recv(); err == nil; _, err = stream.Recv() {
						got[i].Add(1)
					}
				}()
			}
		}
		defer func() {
			if l.Failed() { // lets a Publish go on that waits for it
				go func() {
					for _, err := streams[stalls].Recv(); err == nil; _, err = streams[stalls].Recv() {
					}
				}()
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
		k := 0
		var err error
		l.Call("the stalled client reads again, and its Recv", soon, func() {
			for _, err = streams[stalls].Recv(); err == nil; _, err = streams[stalls].Recv() {
				k++
			}
		})
		// 128 that Send took, one with which it waited, and the queue.
		if want := 128 + 1 + n; k != want || status.Code(err) != codes.ResourceExhausted {
			l.Fatalf("a client read nothing while %d events were published (n is %d); then it got %d events and code %v (%v), want %d and ResourceExhausted",
				events, n, k, status.Code(err), err, want)
		}
	})
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
				for _, err := stream.Recv(); !errors.Is(err, io.EOF) && err == nil; _, err = stream.Recv() {
				}
				cancel()
				if leaks := l.Leaks(); len(leaks) > 0 {
					l.Fatalf("a client that had read nothing of %d events %s, and a second later %s", publish, end, strings.Join(leaks, "\n"))
				}
				l.Call("the only client has left; Publish", soon, func() { b.Publish(large(publish)) })
			})
		}
	}
}
