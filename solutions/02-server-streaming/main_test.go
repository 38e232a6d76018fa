package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// bench is a broker with one topic, which the test holds in its hands.
type bench struct {
	mu     sync.Mutex
	events []*feedv1.Event // published so far
	ended  bool
	err    error
	early  bool     // Err was called before all events were taken
	topics []string // that were subscribed to
	seats  []*seat
}

// seat is a subscription. It begins with what was published before it.
type seat struct {
	b      *bench
	events chan *feedv1.Event // with room for all that a test publishes
	closed bool
}

func (b *bench) Subscribe(topic string) subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := &seat{b: b, events: make(chan *feedv1.Event, 5000)}
	for _, ev := range b.events {
		s.events <- ev
	}
	if b.ended {
		close(s.events)
	}
	b.topics = append(b.topics, topic)
	b.seats = append(b.seats, s)
	return s
}

// publish gives events to all subscriptions that are not closed.
func (b *bench) publish(events ...*feedv1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, events...)
	for _, s := range b.seats {
		for _, ev := range events {
			if !s.closed {
				s.events <- ev
			}
		}
	}
}

// end ends the topic.
func (b *bench) end(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended, b.err = true, err
	for _, s := range b.seats {
		close(s.events)
	}
}

// taken counts the subscriptions that were not closed.
func (b *bench) taken() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.seats {
		if !s.closed {
			n++
		}
	}
	return n
}

// asked returns the topics that were subscribed to.
func (b *bench) asked() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.topics
}

// hint says what may be behind an ending that comes too soon.
func (b *bench) hint() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.early {
		return "; Watch called Err before it had taken all events"
	}
	return ""
}

func (s *seat) Events() <-chan *feedv1.Event { return s.events }

func (s *seat) Err() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if !s.b.ended || len(s.events) > 0 {
		s.b.early = true
	}
	return s.b.err
}

func (s *seat) Close() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.closed = true
}

// event is the event with the given number. Every third has an empty body.
func event(i int) *feedv1.Event {
	body := "event " + strconv.Itoa(i)
	if i%3 == 2 {
		body = ""
	}
	return &feedv1.Event{Id: strconv.Itoa(i), Topic: "deploys", Body: body}
}

func events(n int) (all []*feedv1.Event) {
	for i := range n {
		all = append(all, event(i+1))
	}
	return all
}

// runs runs body for each case, up to the first that fails.
func runs[T any](t *testing.T, cases []T, body func(*lab.Lab, T), opts ...lab.Option) {
	t.Helper()
	for _, c := range cases {
		if !t.Failed() {
			lab.Run(t, func(l *lab.Lab) { body(l, c) }, opts...)
		}
	}
}

// failures are all codes but OK. The one that people know best comes first.
func failures() []codes.Code {
	all := []codes.Code{codes.Unavailable}
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		if c != codes.Unavailable {
			all = append(all, c)
		}
	}
	return all
}

// watch opens Watch as a client that the test reads from.
func watch(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient) grpc.ServerStreamingClient[feedv1.Event] {
	l.Helper()
	return watchTopic(ctx, l, client, "deploys")
}

func watchTopic(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient, topic string) grpc.ServerStreamingClient[feedv1.Event] {
	l.Helper()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		l.Fatal(err)
	}
	return stream
}

// recv waits for at most a second, in virtual time, for what Watch does when
// what has happened.
func recv(l *lab.Lab, stream grpc.ServerStreamingClient[feedv1.Event], what string) (ev *feedv1.Event, err error) {
	l.Helper()
	l.Call("after "+what+" the client's Recv", time.Second, func() { ev, err = stream.Recv() })
	return ev, err
}

// wantEvent reads the next event, which is published and not the last thing
// to happen in its topic.
func wantEvent(l *lab.Lab, b *bench, stream grpc.ServerStreamingClient[feedv1.Event], want *feedv1.Event) {
	l.Helper()
	wantAfter(l, b, stream, "event "+want.GetId()+" was published", want)
}

// wantAfter is wantEvent with other words for what has happened.
func wantAfter(l *lab.Lab, b *bench, stream grpc.ServerStreamingClient[feedv1.Event], published string, want *feedv1.Event) {
	l.Helper()
	ev, err := recv(l, stream, published)
	switch {
	case errors.Is(err, io.EOF):
		l.Fatalf("%s, and the client's Recv returned io.EOF instead of it%s", published, b.hint())
	case err != nil:
		l.Fatalf("%s, and the client's Recv returned code %v (%v) instead of it%s", published, code(err), err, b.hint())
	case lab.Text(ev) != lab.Text(want):
		l.Fatalf("%s, and the client got %s, want %s", published, lab.Text(ev), lab.Text(want))
	}
}

// wantEvents reads the events with the numbers 1 to n.
func wantEvents(l *lab.Lab, b *bench, stream grpc.ServerStreamingClient[feedv1.Event], n int) {
	l.Helper()
	for _, want := range events(n) {
		wantEvent(l, b, stream, want)
	}
}

// wantNoMore checks that nothing came after the topic had ended.
func wantNoMore(l *lab.Lab, ev *feedv1.Event, err error, n int) {
	l.Helper()
	if err == nil {
		l.Fatalf("the topic ended after %d events, and the client then got %s: nobody published that", n, lab.Text(ev))
	}
}

// code is what an error says: io.EOF is OK, and a context's own error counts
// as its code.
func code(err error) codes.Code {
	if err == nil || errors.Is(err, io.EOF) {
		return codes.OK
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

func TestWatchSendsEachEventAsItComes(t *testing.T) {
	runs(t, []string{"deploys", "Alerts"}, func(l *lab.Lab, topic string) {
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream := watchTopic(ctx, l, client, topic)
		for i := range 5 {
			time.Sleep(time.Minute)
			b.publish(event(i + 1))
			wantEvent(l, b, stream, event(i+1))
		}
		if asked := b.asked(); len(asked) != 1 || asked[0] != topic {
			l.Fatalf("the client watches %q, and Watch subscribed to %q", topic, asked)
		}
		release(b, cancel)
	})
}

// release ends a handler, also one that waits for events alone, or for the
// end of its topic: when a handler ends is the matter of other tests.
func release(b *bench, cancel func()) {
	cancel()
	time.Sleep(time.Second)
	b.publish(event(0))
	time.Sleep(time.Second)
	b.end(nil)
}

// silence is how long a topic may be silent. An answer that polls wakes often
// in that time.
const silence = 26 * time.Hour

func TestWatchOutlastsASilentTopic(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream := watch(ctx, l, client)
		b.publish(event(1))
		wantEvent(l, b, stream, event(1))
		time.Sleep(silence)
		b.publish(event(2))
		wantAfter(l, b, stream, fmt.Sprintf("event 2 was published when its topic had been silent for %v hours", silence.Hours()), event(2))
		release(b, cancel)
	}, lab.Lasts(silence+time.Hour))
}

func TestWatchEndsWellWhenTheTopicIsComplete(t *testing.T) {
	runs(t, []int{3, 0}, func(l *lab.Lab, n int) {
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream := watch(ctx, l, client)
		b.publish(events(n)...)
		wantEvents(l, b, stream, n)
		time.Sleep(time.Minute)
		b.end(nil)
		ev, err := recv(l, stream, "the topic has ended")
		wantNoMore(l, ev, err, n)
		if !errors.Is(err, io.EOF) {
			l.Fatalf("the topic is complete after %d events, and the client's Recv returned code %v (%v), want io.EOF", n, code(err), err)
		}
		cancel()
		wantGone(l, b, "the topic is complete")
	})
}

func TestWatchPassesOnHowTheTopicFailed(t *testing.T) {
	runs(t, []int{2, 0}, func(l *lab.Lab, n int) {
		for _, want := range failures() {
			end, err := status.New(want, "the topic moved").WithDetails(event(1))
			if err != nil {
				l.Fatal(err)
			}
			b := &bench{}
			client, _ := l.Connect(&server{broker: b})
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			stream := watch(ctx, l, client)
			b.publish(events(n)...)
			wantEvents(l, b, stream, n)
			b.end(end.Err())
			ev, err := recv(l, stream, "the topic has failed")
			wantNoMore(l, ev, err, n)
			got := status.Convert(err)
			switch {
			case errors.Is(err, io.EOF):
				l.Fatalf("the topic failed with code %v after %d events, and the client's Recv returned io.EOF: it takes what it has for all", want, n)
			case code(err) != want:
				l.Fatalf("the topic failed with code %v after %d events, and the client got code %v (%v)", want, n, code(err), err)
			case !strings.Contains(got.Message(), end.Message()):
				l.Fatalf("the topic failed with the text %q, and the client got the text %q", end.Message(), got.Message())
			case len(got.Details()) != 1:
				l.Fatalf("the topic failed with a status that has a detail, and the client got the status without it")
			}
			cancel()
			wantGone(l, b, "the topic failed")
		}
	})
}

// All at once: a topic that ends well, and one that fails.
func TestWatchSendsWhatWasPublishedBeforeTheEnd(t *testing.T) {
	runs(t, []error{nil, status.Error(codes.Unavailable, "the topic moved")}, func(l *lab.Lab, end error) {
		const n = 3000
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		b.publish(events(n)...)
		b.end(end)
		start := time.Now()
		stream := watch(ctx, l, client)
		for i, want := range events(n) {
			wantEvent(l, b, stream, want)
			if time.Since(start) > time.Second {
				l.Fatalf("%d events were published, and a second later a client that reads at once had %d of them", n, i)
			}
		}
		ev, err := recv(l, stream, "the topic has ended")
		wantNoMore(l, ev, err, n)
		if code(err) != code(end) {
			l.Fatalf("the topic ended with code %v after %d events, and the client got code %v (%v)", code(end), n, code(err), err)
		}
	})
}

// wantGone checks that nothing is left of the handler within a second. The
// test has cancelled its own context by then: the lab asks for that too.
func wantGone(l *lab.Lab, b *bench, what string) {
	l.Helper()
	if leaks := strings.Join(l.Leaks(), "\n"); strings.Contains(leaks, "in a select") {
		l.Fatalf("%s, and a second later %s. Which of its cases becomes ready then, and how soon?", what, leaks)
	} else if leaks != "" {
		l.Fatalf("%s, and a second later %s", what, leaks)
	}
	if n := b.taken(); n > 0 {
		l.Fatalf("%s and Watch has returned, but its subscription was not closed", what)
	}
}

// leave is how the client of a silent topic leaves, a while after it came.
func leave(t *testing.T, what string, how func(cancel func(), conn *grpc.ClientConn, link *lab.Link, srv *grpc.Server)) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{}
		link := l.NewLink()
		srv := link.Serve(&server{broker: b})
		conn := link.Dial()
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream := watch(ctx, l, feedv1.NewFeedServiceClient(conn))
		b.publish(event(1))
		wantEvent(l, b, stream, event(1))
		time.Sleep(2300 * time.Millisecond)
		how(cancel, conn, link, srv)
		stream.Recv() // returns how the client's side ended
		cancel()
		wantGone(l, b, what)
	})
}

func TestWatchEndsWhenItsClientCancels(t *testing.T) {
	leave(t, "the client of a silent topic cancelled",
		func(cancel func(), _ *grpc.ClientConn, _ *lab.Link, _ *grpc.Server) { cancel() })
}

func TestWatchEndsWhenTheConnectionIsClosed(t *testing.T) {
	leave(t, "the client of a silent topic closed its connection",
		func(_ func(), conn *grpc.ClientConn, _ *lab.Link, _ *grpc.Server) { conn.Close() })
}

func TestWatchEndsWhenTheConnectionBreaks(t *testing.T) {
	leave(t, "the connection broke under a silent topic",
		func(_ func(), _ *grpc.ClientConn, link *lab.Link, _ *grpc.Server) { link.Cut() })
}

func TestWatchEndsWhenTheServerStops(t *testing.T) {
	leave(t, "the server of a silent topic was stopped",
		func(_ func(), _ *grpc.ClientConn, _ *lab.Link, srv *grpc.Server) { srv.Stop() })
}

func TestWatchEndsWhenTheDeadlinePasses(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithTimeout(l.Context(), 2300*time.Millisecond)
		defer cancel()
		watch(ctx, l, client).Recv()
		wantGone(l, b, "the deadline of a silent topic's client passed")
	})
}

// fat returns n events of more than 500 B. A stream holds 131 KB of them.
func fat(n int) []*feedv1.Event {
	all := events(n)
	for _, ev := range all {
		ev.Body = strings.Repeat("x", 500)
	}
	return all
}

func TestWatchWaitsForASlowClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const n, pause = 3000, 10 * time.Minute
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream := watch(ctx, l, client)
		b.publish(fat(n)...)
		time.Sleep(pause)
		for i, want := range fat(n) {
			wantAfter(l, b, stream, fmt.Sprintf("event %d was published and the client read nothing for %v", i+1, pause), want)
		}
		b.end(nil)
		ev, err := recv(l, stream, "the topic has ended")
		wantNoMore(l, ev, err, n)
		if !errors.Is(err, io.EOF) {
			l.Fatalf("the client of a complete topic was slow, and its Recv returned code %v (%v), want io.EOF", code(err), err)
		}
	}, lab.Lasts(time.Hour))
}

func TestWatchEndsWhenAClientThatReadsNothingLeaves(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		b.publish(fat(500)...)
		watch(ctx, l, client)
		time.Sleep(2300 * time.Millisecond)
		cancel()
		wantGone(l, b, "a client that reads nothing left")
	})
}

func TestWatchSubscribesForEachClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		gone, leave := context.WithCancel(ctx)
		defer leave()
		leaver := watch(gone, l, client)
		time.Sleep(time.Second)
		stayer := watch(ctx, l, client)
		time.Sleep(time.Second)
		b.publish(event(1), event(2))
		wantEvents(l, b, leaver, 2)
		leave()
		time.Sleep(time.Second)
		b.publish(event(3))
		wantEvents(l, b, stayer, 3)
		b.end(nil)
		ev, err := recv(l, stayer, "the topic has ended")
		wantNoMore(l, ev, err, 3)
		if !errors.Is(err, io.EOF) {
			l.Fatalf("one client left, and the Recv of the other returned code %v (%v) at the end of the topic, want io.EOF", code(err), err)
		}
		cancel()
		wantGone(l, b, "one client left, the topic of the other is complete")
	})
}

// script is a server whose Watch is a function.
type script struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(topic string, stream grpc.ServerStreamingServer[feedv1.Event]) error
}

func (s script) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	return s.watch(req.GetTopic(), stream)
}

// sends is a Watch that sends n events and returns err, with an interval
// before each event and before the end.
func sends(n int, interval time.Duration, err error) script {
	return script{watch: func(_ string, stream grpc.ServerStreamingServer[feedv1.Event]) error {
		for i := range n + 1 {
			select {
			case <-time.After(interval):
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
			if i == n {
				break
			}
			if err := stream.Send(event(i + 1)); err != nil {
				return err
			}
		}
		return err
	}}
}

// sendAll sends events at once.
func sendAll(stream grpc.ServerStreamingServer[feedv1.Event], events []*feedv1.Event) error {
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return nil
}

// silent is a Watch that sends two events and then nothing.
func silent() script {
	return script{watch: func(_ string, stream grpc.ServerStreamingServer[feedv1.Event]) error {
		if err := sendAll(stream, events(2)); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}}
}

// call runs collect with a limit in virtual time.
func call(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient, limit time.Duration) (got []*feedv1.Event, err error) {
	l.Helper()
	l.Call("collect", limit, func() { got, err = collect(ctx, client, "deploys") })
	return got, err
}

// wantAll checks that collect returned the events 1 to n and no error.
func wantAll(l *lab.Lab, server string, got []*feedv1.Event, err error, n int) {
	l.Helper()
	switch {
	case err != nil && errors.Is(err, io.EOF):
		l.Fatalf("%s, and collect returned io.EOF as an error", server)
	case err != nil:
		l.Fatalf("%s, and collect returned code %v (%v), want no error", server, code(err), err)
	case len(got) != n:
		l.Fatalf("%s, and collect returned %d", server, len(got))
	}
	for i, want := range events(n) {
		if lab.Text(got[i]) != lab.Text(want) {
			l.Fatalf("event %d of %d that collect returned is %s, want %s", i+1, n, lab.Text(got[i]), lab.Text(want))
		}
	}
}

func TestCollectReturnsEveryEventInOrder(t *testing.T) {
	runs(t, []int{5, 1, 0, 3000}, func(l *lab.Lab, n int) {
		client, _ := l.Connect(sends(n, time.Millisecond, nil))
		got, err := call(l.Context(), l, client, time.Minute)
		wantAll(l, fmt.Sprintf("the server sent %d events and ended well", n), got, err, n)
	})
}

// A hundred bursts, each of another size: a collect that may see the end
// before the last events loses them in most, but in none for certain.
func TestCollectLosesNothingOfABurst(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var n atomic.Int64 // events of the burst
		client, _ := l.Connect(script{watch: func(_ string, stream grpc.ServerStreamingServer[feedv1.Event]) error {
			return sendAll(stream, events(int(n.Load())))
		}})
		for range 100 {
			n.Add(1)
			got, err := call(l.Context(), l, client, time.Minute)
			if err == nil && len(got) < int(n.Load()) {
				l.Fatalf("the server sent a burst of events and ended well, and collect returned fewer events and no error")
			}
			wantAll(l, fmt.Sprintf("the server sent %d events at once and ended well", n.Load()), got, err, int(n.Load()))
		}
	})
}

func TestCollectAsksForTheTopic(t *testing.T) {
	runs(t, []string{"deploys", "Alerts"}, func(l *lab.Lab, topic string) {
		asked := make(chan string, 10)
		client, _ := l.Connect(script{watch: func(topic string, _ grpc.ServerStreamingServer[feedv1.Event]) error {
			asked <- topic
			return nil
		}})
		l.Call("collect", time.Minute, func() { collect(l.Context(), client, topic) })
		if len(asked) == 0 {
			l.Fatalf("collect returned, and the server was never asked")
		}
		if got := <-asked; got != topic {
			l.Fatalf("collect was called for %q and asked for %q", topic, got)
		}
	})
}

func TestCollectWaitsForASlowTopic(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(sends(2, silence, nil))
		got, err := call(l.Context(), l, client, 4*silence)
		server := fmt.Sprintf("the server sent 2 events with %v hours of silence before each and ended well", silence.Hours())
		wantAll(l, "the caller set no deadline, "+server, got, err, 2)
	}, lab.Lasts(5*silence))
}

// Every code, and a text that looks like a good end.
func TestCollectReportsTheFailureOfTheServer(t *testing.T) {
	runs(t, []int{2, 0}, func(l *lab.Lab, n int) {
		for i, want := range failures() {
			text := "EOF"
			if i == 0 {
				text = "the topic moved"
			}
			client, _ := l.Connect(sends(n, 10*time.Millisecond, status.Error(want, text)))
			_, err := call(l.Context(), l, client, time.Minute)
			switch {
			case err == nil:
				l.Fatalf("the server sent %d events and failed with code %v, and collect returned no error", n, want)
			case errors.Is(err, io.EOF):
				l.Fatalf("the server sent %d events and failed with code %v, and collect returned io.EOF", n, want)
			case code(err) != want:
				l.Fatalf("the server sent %d events and failed with code %v, and collect returned code %v (%v)", n, want, code(err), err)
			}
			if calls := len(l.RPCs()); calls != i+1 {
				l.Fatalf("the server failed with code %v, and collect called Watch %d times, want once: its caller decides whether to try again", want, calls-i)
			}
		}
	})
}

// wantEnded checks how collect ended, and that it did so within a second.
func wantEnded(l *lab.Lab, what string, late time.Duration, got []*feedv1.Event, err error, want codes.Code) {
	l.Helper()
	switch {
	case late > time.Second:
		l.Fatalf("%s, and collect returned %v later, want at most 1s", what, late)
	case err == nil:
		l.Fatalf("%s, the topic had not ended, and collect returned %d events and no error", what, len(got))
	case code(err) != want:
		l.Fatalf("%s, and collect returned code %v (%v), want %v", what, code(err), err, want)
	}
}

func TestCollectEndsWhenItsCallerCancels(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(silent())
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		const after = 2300 * time.Millisecond
		time.AfterFunc(after, cancel)
		start := time.Now()
		got, err := call(ctx, l, client, time.Minute)
		wantEnded(l, "the caller cancelled", time.Since(start)-after, got, err, codes.Canceled)
	})
}

// cancels is a client's stream whose caller cancels when it has event 2.
type cancels struct {
	grpc.ClientStream
	cancel func()
	n      int
}

func (s *cancels) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if s.n++; s.n == 2 {
		s.cancel()
	}
	return err
}

func TestCollectEndsWhenItsCallerCancelsBetweenTwoEvents(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		link := l.NewLink()
		link.Serve(silent())
		conn := link.Dial(grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn,
			method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			stream, err := open(ctx, desc, conn, method, opts...)
			return &cancels{ClientStream: stream, cancel: cancel}, err
		}))
		start := time.Now()
		got, err := call(ctx, l, feedv1.NewFeedServiceClient(conn), time.Minute)
		wantEnded(l, "the caller cancelled after event 2", time.Since(start), got, err, codes.Canceled)
	})
}

func TestCollectEndsAtTheDeadlineOfItsCaller(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(silent())
		const after = 2300 * time.Millisecond
		ctx, cancel := context.WithTimeout(l.Context(), after)
		defer cancel()
		start := time.Now()
		got, err := call(ctx, l, client, time.Minute)
		wantEnded(l, "the caller's deadline passed", time.Since(start)-after, got, err, codes.DeadlineExceeded)
	})
}

func TestCollectEndsWhenTheConnectionBreaks(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(silent())
		const after = 2300 * time.Millisecond
		time.AfterFunc(after, link.Cut)
		start := time.Now()
		got, err := call(l.Context(), l, client, time.Minute)
		wantEnded(l, "the connection broke", time.Since(start)-after, got, err, codes.Unavailable)
	})
}

func TestCollectEndsWhenItsCallerHasLeft(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(silent())
		ctx, cancel := context.WithCancel(l.Context())
		cancel()
		start := time.Now()
		got, err := call(ctx, l, client, time.Minute)
		wantEnded(l, "the caller had cancelled before the call", time.Since(start), got, err, codes.Canceled)
	})
}
