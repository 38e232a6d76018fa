package main

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"
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
	s := &seat{b: b, events: make(chan *feedv1.Event, 1000)}
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

func (s *seat) Events() <-chan *feedv1.Event { return s.events }

func (s *seat) Err() error {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
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

// watch opens Watch as a client that the test reads from.
func watch(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient) grpc.ServerStreamingClient[feedv1.Event] {
	l.Helper()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys"})
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
func wantEvent(l *lab.Lab, stream grpc.ServerStreamingClient[feedv1.Event], want *feedv1.Event) {
	l.Helper()
	published := "event " + want.GetId() + " was published"
	ev, err := recv(l, stream, published)
	switch {
	case errors.Is(err, io.EOF):
		l.Fatalf("%s, and the client's Recv returned io.EOF instead of it", published)
	case err != nil:
		l.Fatalf("%s, and the client's Recv returned code %v (%v) instead of it", published, code(err), err)
	case lab.Text(ev) != lab.Text(want):
		l.Fatalf("%s, and the client got %s, want %s", published, lab.Text(ev), lab.Text(want))
	}
}

// wantEvents reads the events with the numbers 1 to n.
func wantEvents(l *lab.Lab, stream grpc.ServerStreamingClient[feedv1.Event], n int) {
	l.Helper()
	for _, want := range events(n) {
		wantEvent(l, stream, want)
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
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream := watch(ctx, l, client)
		for i := range 5 {
			time.Sleep(time.Minute)
			b.publish(event(i + 1))
			wantEvent(l, stream, event(i+1))
		}
		if asked := b.asked(); len(asked) != 1 || asked[0] != "deploys" {
			l.Fatalf(`the client watches "deploys", and Watch subscribed to %q`, asked)
		}
		cancel()
		time.Sleep(time.Second)
		b.publish(event(6)) // ends a handler that waits for events alone: that is not the matter here
	})
}

func TestWatchEndsWellWhenTheTopicIsComplete(t *testing.T) {
	for _, n := range []int{3, 0} {
		lab.Run(t, func(l *lab.Lab) {
			b := &bench{}
			client, _ := l.Connect(&server{broker: b})
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			stream := watch(ctx, l, client)
			b.publish(events(n)...)
			wantEvents(l, stream, n)
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
}

func TestWatchSendsWhatWasPublishedBeforeTheEnd(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const n = 1000
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		b.publish(events(n)...)
		b.end(nil)
		stream := watch(ctx, l, client)
		wantEvents(l, stream, n)
		ev, err := recv(l, stream, "the topic has ended")
		wantNoMore(l, ev, err, n)
		if !errors.Is(err, io.EOF) {
			l.Fatalf("after %d events, which are all, the client's Recv returned code %v (%v), want io.EOF", n, code(err), err)
		}
	})
}

func TestWatchPassesOnHowTheTopicFailed(t *testing.T) {
	for _, tt := range []struct {
		n    int
		want codes.Code
	}{{2, codes.Unavailable}, {0, codes.NotFound}} {
		lab.Run(t, func(l *lab.Lab) {
			b := &bench{}
			client, _ := l.Connect(&server{broker: b})
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			stream := watch(ctx, l, client)
			b.publish(events(tt.n)...)
			wantEvents(l, stream, tt.n)
			b.end(status.Error(tt.want, "the topic moved"))
			ev, err := recv(l, stream, "the topic has failed")
			wantNoMore(l, ev, err, tt.n)
			if errors.Is(err, io.EOF) {
				l.Fatalf("the topic failed with code %v after %d events, and the client's Recv returned io.EOF: it takes what it has for all", tt.want, tt.n)
			}
			if code(err) != tt.want {
				l.Fatalf("the topic failed with code %v after %d events, and the client got code %v (%v)", tt.want, tt.n, code(err), err)
			}
			cancel()
			wantGone(l, b, "the topic failed")
		})
	}
}

// wantGone checks that nothing is left of the handler within a second. The
// test has cancelled its own context by then: the lab asks for that too.
func wantGone(l *lab.Lab, b *bench, what string) {
	l.Helper()
	if leaks := l.Leaks(); len(leaks) > 0 {
		l.Fatalf("%s, and a second later %s", what, strings.Join(leaks, "\n"))
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
		wantEvent(l, stream, event(1))
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

func TestWatchEndsWhenTheNetworkDies(t *testing.T) {
	leave(t, "the network was cut under a silent topic",
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

func TestWatchEndsWhenAClientThatReadsNothingLeaves(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{}
		client, _ := l.Connect(&server{broker: b})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		body := strings.Repeat("x", 1000)
		for range 500 { // 500 KB, far more than a stream takes unread
			b.publish(&feedv1.Event{Id: "1", Body: body})
		}
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
		wantEvents(l, leaver, 2)
		leave()
		time.Sleep(time.Second)
		b.publish(event(3))
		wantEvents(l, stayer, 3)
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

// sends is a Watch that sends n events, one each interval, and returns err.
func sends(n int, interval time.Duration, err error) script {
	return script{watch: func(_ string, stream grpc.ServerStreamingServer[feedv1.Event]) error {
		for _, ev := range events(n) {
			select {
			case <-time.After(interval):
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		}
		return err
	}}
}

// silent is a Watch that sends two events and then nothing.
func silent() script {
	return script{watch: func(_ string, stream grpc.ServerStreamingServer[feedv1.Event]) error {
		for _, ev := range events(2) {
			if err := stream.Send(ev); err != nil {
				return err
			}
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
func wantAll(l *lab.Lab, got []*feedv1.Event, err error, n int) {
	l.Helper()
	switch {
	case err != nil && errors.Is(err, io.EOF):
		l.Fatalf("the server sent %d events and ended well, and collect returned io.EOF as an error", n)
	case err != nil:
		l.Fatalf("the server sent %d events and ended well, and collect returned code %v (%v), want no error", n, code(err), err)
	case len(got) != n:
		l.Fatalf("the server sent %d events, and collect returned %d", n, len(got))
	}
	for i, want := range events(n) {
		if lab.Text(got[i]) != lab.Text(want) {
			l.Fatalf("event %d of %d that collect returned is %s, want %s", i+1, n, lab.Text(got[i]), lab.Text(want))
		}
	}
}

func TestCollectReturnsEveryEventInOrder(t *testing.T) {
	for _, n := range []int{5, 1, 0, 1000} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(sends(n, 10*time.Millisecond, nil))
			got, err := call(l.Context(), l, client, time.Minute)
			wantAll(l, got, err, n)
		})
	}
}

func TestCollectAsksForTheTopic(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		asked := make(chan string, 10)
		client, _ := l.Connect(script{watch: func(topic string, _ grpc.ServerStreamingServer[feedv1.Event]) error {
			asked <- topic
			return nil
		}})
		call(l.Context(), l, client, time.Minute)
		if len(asked) == 0 {
			l.Fatalf("collect returned, and the server was never asked")
		}
		if topic := <-asked; topic != "deploys" {
			l.Fatalf(`collect was called for "deploys" and asked for %q`, topic)
		}
	})
}

func TestCollectWaitsForASlowTopic(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(sends(5, time.Hour, nil))
		got, err := call(l.Context(), l, client, 6*time.Hour)
		wantAll(l, got, err, 5)
	}, lab.Lasts(7*time.Hour))
}

// Every code, and a text that looks like a good end.
func TestCollectReportsTheFailureOfTheServer(t *testing.T) {
	for _, n := range []int{2, 0} {
		lab.Run(t, func(l *lab.Lab) {
			for want := codes.Canceled; want <= codes.Unauthenticated; want++ {
				client, _ := l.Connect(sends(n, 10*time.Millisecond, status.Error(want, "EOF")))
				_, err := call(l.Context(), l, client, time.Minute)
				switch {
				case err == nil:
					l.Fatalf("the server sent %d events and failed with code %v, and collect returned no error", n, want)
				case errors.Is(err, io.EOF):
					l.Fatalf("the server sent %d events and failed with code %v, and collect returned io.EOF", n, want)
				case code(err) != want:
					l.Fatalf("the server sent %d events and failed with code %v, and collect returned code %v (%v)", n, want, code(err), err)
				}
			}
		})
	}
}

// wantEnded checks how collect ended, and that it did so within a second.
func wantEnded(l *lab.Lab, what string, late time.Duration, got []*feedv1.Event, err error, want codes.Code) {
	l.Helper()
	switch {
	case late > time.Second:
		l.Fatalf("%s, and collect returned %v later, want at most 1s", what, late)
	case err == nil:
		l.Fatalf("%s before the topic ended, and collect returned %d events and no error", what, len(got))
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

func TestCollectEndsWhenTheNetworkDies(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(silent())
		const after = 2300 * time.Millisecond
		time.AfterFunc(after, link.Cut)
		start := time.Now()
		got, err := call(l.Context(), l, client, time.Minute)
		wantEnded(l, "the network was cut", time.Since(start)-after, got, err, codes.Unavailable)
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
