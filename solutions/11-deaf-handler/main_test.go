package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// soon is how long Watch may take for whatever it has to do.
const soon = 100 * time.Millisecond

// A bench serves the answer's Watch and follows what it does.
type bench struct {
	l      *lab.Lab
	hub    hub
	srv    *grpc.Server
	link   *lab.Link
	conn   *grpc.ClientConn
	client feedv1.FeedServiceClient

	mu      sync.Mutex
	topics  []string  // that were subscribed to
	open    int       // subscriptions that were not closed
	most    int       // times that one subscription was closed
	running int       // handlers
	ended   time.Time // the last handler
}

func newBench(l *lab.Lab) *bench {
	b := &bench{l: l, link: l.NewLink()}
	b.srv = b.link.Serve(followed{&server{broker: b}, b})
	b.conn = b.link.Dial()
	b.client = feedv1.NewFeedServiceClient(b.conn)
	return b
}

// followed is the answer's server, whose handlers are counted.
type followed struct {
	*server
	b *bench
}

func (f followed) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	f.b.mu.Lock()
	f.b.running++
	f.b.mu.Unlock()
	defer func() {
		f.b.mu.Lock()
		defer f.b.mu.Unlock()
		f.b.running--
		f.b.ended = time.Now()
	}()
	return f.server.Watch(req, stream)
}

func (b *bench) Subscribe(topic string) *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.topics = append(b.topics, topic)
	b.open++
	sub, times := b.hub.Subscribe(topic), 0
	return &Subscription{C: sub.C, close: func() {
		b.mu.Lock()
		times++
		b.most = max(b.most, times)
		first := times == 1
		if first {
			b.open--
		}
		b.mu.Unlock()
		if first {
			sub.Close()
		}
	}}
}

// state returns how many handlers run, how many subscriptions are open, and
// how often one was closed at most.
func (b *bench) state() (running, open, most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.running, b.open, b.most
}

const topic = "deploys"

// event is the event with the given number. Every third has an empty body.
func event(topic string, i int) *feedv1.Event {
	body := "event " + strconv.Itoa(i)
	if i%3 == 2 {
		body = ""
	}
	return &feedv1.Event{Id: strconv.Itoa(i), Topic: topic, Body: body}
}

type client = grpc.ServerStreamingClient[feedv1.Event]

// enter opens a Watch and returns when the handler has subscribed.
func (b *bench) enter(ctx context.Context, topic string) client {
	b.l.Helper()
	stream, err := b.client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		b.l.Fatal(err)
	}
	others, _, _ := b.state()
	before := b.subscribed()
	time.Sleep(soon)
	if n := b.subscribed() - before; n != 1 {
		b.l.Fatalf("a client came (others that are there: %d), and %v later Watch had subscribed %d times: want one subscription for each client", others, soon, n)
	}
	return stream
}

func (b *bench) subscribed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.topics)
}

// publish hands an event to those who watch, none of whom has a reason to
// keep it waiting.
func (b *bench) publish(ev *feedv1.Event) {
	b.l.Helper()
	b.l.Call("the publisher of an event", soon, func() { b.hub.publish(ev) })
}

// wantEvent wants the client to receive an event that was published.
func (b *bench) wantEvent(stream client, want *feedv1.Event) {
	b.l.Helper()
	var ev *feedv1.Event
	var err error
	b.l.Call(fmt.Sprintf("event %s was published, and the client's Recv", want.GetId()), soon, func() { ev, err = stream.Recv() })
	if err != nil {
		b.l.Fatalf("event %s was published, and the client's Recv returned %v instead of it", want.GetId(), err)
	}
	if got := lab.Text(ev); got != lab.Text(want) {
		b.l.Fatalf("the client got %s, want %s", got, lab.Text(want))
	}
}

// release ends a handler for a test that is not about its end.
func (b *bench) release(cancel func()) {
	cancel()
	time.Sleep(time.Second)
	for _, t := range b.topics {
		b.hub.end(t)
	}
}

// wantGone wants everything of the clients that left to be gone soon after
// what has happened.
func (b *bench) wantGone(what string) {
	b.l.Helper()
	since := time.Now()
	time.Sleep(soon)
	if running, _, _ := b.state(); running > 0 {
		stuck := b.l.Stuck()
		time.Sleep(time.Hour)
		later := "an hour later it still did"
		if running, _, _ := b.state(); running == 0 {
			later = fmt.Sprintf("it returned %v after the end", b.ended.Sub(since).Round(time.Millisecond))
		}
		b.l.Fatalf("%s, and %v later Watch still ran: %s; %s", what, soon, stuck, later)
	}
	if _, open, _ := b.state(); open > 0 {
		b.l.Fatalf("%s, and %v later Watch had returned, but its subscription was open; %s", what, soon, b.heldUp())
	}
	leaks := strings.Join(b.l.Leaks(), "\n") // looks a second later
	if _, _, most := b.state(); most > 1 {
		b.l.Fatalf("%s, and Watch closed its subscription %d times, want once", what, most)
	}
	if leaks != "" {
		b.l.Fatalf("%s, and a second later %s", what, leaks)
	}
}

// heldUp says how long a subscription that was left open keeps a publisher.
func (b *bench) heldUp() string {
	start := time.Now()
	select {
	case <-b.publishAll(2, ""):
	case <-time.After(time.Hour):
	}
	switch waited := time.Since(start).Round(time.Millisecond); {
	case waited == time.Hour:
		return "an hour later a publisher still waited for it"
	case waited > 0:
		return fmt.Sprintf("a publisher waited %v for it", waited)
	default: // the topic has ended, or somebody takes the events
		time.Sleep(time.Hour)
		return "an hour later it still was"
	}
}

func TestWatchSendsEachEventAsItComes(t *testing.T) {
	for _, topic := range []string{"deploys", "Alerts"} {
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l)
			ctx, cancel := context.WithCancel(l.Context())
			stream := b.enter(ctx, topic)
			for _, i := range []int{1, 2, 2, 3} { // two are alike
				time.Sleep(time.Minute)
				b.publish(event(topic, i))
				b.wantEvent(stream, event(topic, i))
			}
			if got := b.topics[0]; got != topic {
				l.Fatalf("the client watches %q, and Watch subscribed to %q", topic, got)
			}
			b.release(cancel)
		})
	}
}

// silence is how long a topic may be silent. An answer that polls wakes often in
// that time, and may: it has more real time for that.
const silence = 26 * time.Hour

func TestWatchStaysAtASilentTopic(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		ctx, cancel := context.WithCancel(l.Context())
		stream := b.enter(ctx, topic)
		came := time.Now().Add(-soon)
		time.Sleep(silence)
		if running, _, _ := b.state(); running == 0 {
			_, err := stream.Recv()
			l.Fatalf("the topic was silent for %v, its client stayed, and Watch returned %v after it came: the client's Recv returned %v", silence, b.ended.Sub(came).Round(time.Second), err)
		}
		b.publish(event(topic, 1))
		b.wantEvent(stream, event(topic, 1))
		b.release(cancel)
	}, lab.Lasts(silence+2*time.Hour), lab.RealLimit(30*time.Second))
}

// leave is how the client of a topic leaves that has had one event.
func leave(t *testing.T, what string, how func(b *bench, cancel func())) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		ctx, cancel := context.WithTimeout(l.Context(), 3210*time.Millisecond)
		defer cancel()
		stream := b.enter(ctx, topic)
		b.publish(event(topic, 1))
		b.wantEvent(stream, event(topic, 1))
		time.Sleep(1910*time.Millisecond - lab.Latency) // 2.01 s after it came
		how(b, cancel)
		go stream.Recv()               // releases the client's stream,
		time.AfterFunc(2*soon, cancel) // and this its context
		b.wantGone(what)
	}, lab.Lasts(2*time.Hour))
}

func TestWatchEndsWhenItsClientCancels(t *testing.T) {
	leave(t, "the client of a silent topic cancelled", func(_ *bench, cancel func()) { cancel() })
}

func TestWatchEndsWhenTheDeadlinePasses(t *testing.T) {
	leave(t, "the deadline of a silent topic's client passed", func(*bench, func()) { time.Sleep(1200 * time.Millisecond) })
}

func TestWatchEndsWhenTheConnectionIsClosed(t *testing.T) {
	leave(t, "the client of a silent topic closed its connection", func(b *bench, _ func()) { b.conn.Close() })
}

func TestWatchEndsWhenTheConnectionBreaks(t *testing.T) {
	leave(t, "the connection broke under a silent topic", func(b *bench, _ func()) { b.link.Cut() })
}

func TestWatchEndsWhenTheServerStops(t *testing.T) {
	leave(t, "the server of a silent topic was stopped", func(b *bench, _ func()) { b.srv.Stop() })
}

func TestWatchEndsWellWithItsTopic(t *testing.T) {
	for _, n := range []int{3, 0} {
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l)
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			stream := b.enter(ctx, topic)
			for i := range n {
				b.publish(event(topic, i+1))
				b.wantEvent(stream, event(topic, i+1))
			}
			time.Sleep(time.Minute)
			b.hub.end(topic)
			var ev *feedv1.Event
			var err error
			l.Call("the topic has ended, and the client's Recv", soon, func() { ev, err = stream.Recv() })
			if err == nil {
				l.Fatalf("the topic ended after %d events, which closes C, and the client then got %s: nobody published that; Watch is %s", n, lab.Text(ev), l.Stuck())
			}
			if !errors.Is(err, io.EOF) {
				l.Fatalf("the topic ended after %d events, and the client's Recv returned code %v (%v), want io.EOF", n, status.Code(err), err)
			}
			cancel()
			b.wantGone("the topic ended")
		}, lab.Lasts(2*time.Hour))
	}
}

// publishAll publishes n events of 1 KB, however long that takes.
func (b *bench) publishAll(n int, body string) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range n {
			ev := event(topic, i+1)
			ev.Body = body
			b.hub.publish(ev)
		}
	}()
	return done
}

// The client reads nothing: Send waits, and so do the next event and its
// publisher. 200 KB are more than a stream holds.
func TestWatchEndsWhileSendWaits(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		b.enter(ctx, topic)
		published := b.publishAll(200, strings.Repeat("x", 1000))
		time.Sleep(time.Minute)
		cancel()
		b.wantGone("a client that read nothing cancelled")
		l.Call("a client that read nothing has left, and the publisher", soon, func() { <-published })
	}, lab.Lasts(2*time.Hour))
}

// The topic ends when its last event has been taken: by Watch, if it waits for
// the client, or by a queue.
func TestWatchLosesNothingForASlowClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const n = 2000
		b := newBench(l)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		came := time.Now()
		stream := b.enter(ctx, topic)
		published := b.publishAll(n, strings.Repeat("x", 1000))
		go func() { <-published; b.hub.end(topic) }()
		time.Sleep(10 * time.Minute)
		var got int
		var err error
		l.Call("a client read nothing for 10m, and to Recv all that was published", time.Minute, func() {
			var ev *feedv1.Event
			for ev, err = stream.Recv(); err == nil && ev.GetId() == strconv.Itoa(got+1); ev, err = stream.Recv() {
				got++
			}
		})
		what := fmt.Sprintf("%d events were published to a client that read nothing for 10m, and then all", n)
		switch ended := errors.Is(err, io.EOF); {
		case err != nil && !ended:
			l.Fatalf("%s: its Recv returned %v, want every event and io.EOF; Watch returned %v after the client came", what, err, b.ended.Sub(came).Round(time.Second))
		case !ended || got < n:
			l.Fatalf("%s: events are missing or out of order", what)
		}
	}, lab.Lasts(time.Hour))
}

func TestAWatcherThatLeavesTakesNoneAlong(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		leaving, leave := context.WithCancel(ctx)
		defer leave()
		leaver, stayer := b.enter(leaving, topic), b.enter(ctx, topic)
		for i := range 6 {
			if i == 3 {
				leave()
				leaver.Recv()
				time.Sleep(time.Second)
			}
			b.publish(event(topic, i+1))
			b.wantEvent(stayer, event(topic, i+1))
			if i < 3 {
				b.wantEvent(leaver, event(topic, i+1))
			}
		}
		b.release(cancel)
	})
}

// A lock that is held over a Send which waits keeps virtual time from moving:
// then the verdict is the lab's, and says where Lock waits.
func TestASlowClientHoldsUpNoOther(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		b.enter(ctx, topic)
		b.publishAll(200, strings.Repeat("x", 1000))
		time.Sleep(time.Minute)
		stream := b.enter(ctx, "alerts")
		b.publish(event("alerts", 1))
		b.wantEvent(stream, event("alerts", 1))
		b.release(cancel)
	})
}

func TestAThousandClientsLeaveNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		for range 2 {
			ctx, cancel := context.WithCancel(l.Context())
			for range 500 {
				if _, err := b.client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}); err != nil {
					l.Fatal(err)
				}
			}
			time.Sleep(1510 * time.Millisecond)
			if _, open, _ := b.state(); open != 500 {
				l.Fatalf("500 clients watch a silent topic, and %d subscriptions are open, want one for each:\n%s", open, l.Stuck())
			}
			cancel()
			b.wantGone("500 clients of a silent topic cancelled")
		}
	}, lab.Lasts(2*time.Hour))
}
