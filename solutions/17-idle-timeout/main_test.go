package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const (
	limit    = 30 * time.Second // idle, where a test does not say otherwise
	slow     = 47 * time.Second // what a slow handle takes: more than the limit
	toReturn = time.Second      // what README.md allows
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// script is a server whose Watch is a function.
type script func(topic string, stream watchServer) error

type server struct {
	feedv1.UnimplementedFeedServiceServer
	watch script
}

func (s server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	return s.watch(req.GetTopic(), stream)
}

// sends sends n events, each after a gap, and does then what comes next.
func sends(n int, gap time.Duration, next script) script {
	return func(topic string, stream watchServer) error {
		for i := range n {
			if err := wait(stream, gap); err != nil {
				return err
			}
			if err := stream.Send(&feedv1.Event{Id: strconv.Itoa(i + 1), Topic: topic}); err != nil {
				return err
			}
		}
		return next(topic, stream)
	}
}

func wait(stream watchServer, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// What a topic does after its events.
func isSilent(_ string, stream watchServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

func ends(after time.Duration, with error) script {
	return func(_ string, stream watchServer) error {
		if err := wait(stream, after); err != nil {
			return err
		}
		return with
	}
}

// A trial is one call of watchIdle.
type trial struct {
	idle  time.Duration // limit, where it is 0
	takes time.Duration // what handle takes for each event

	err      error
	returned time.Time

	mu      sync.Mutex // an answer may call handle on a goroutine of its own
	handled []string
	running bool      // handle
	over    bool      // watchIdle has returned
	quiet   time.Time // since when nothing has come: the call, or the end of the last handle
}

// run calls watchIdle, which has until by to return.
func (s *trial) run(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient, by time.Duration) {
	l.Helper()
	if s.idle == 0 {
		s.idle = limit
	}
	before := len(l.RPCs())
	s.quiet = time.Now()
	l.Call("watchIdle", by, func() { s.err = watchIdle(ctx, client, "deploys", s.idle, func(ev *feedv1.Event) { s.handle(l, ev) }) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over, s.returned = true, time.Now()
	if s.running {
		l.Fatalf("watchIdle returned %s while handle ran, want it to wait for handle", name(s.err))
	}
	if n := len(l.RPCs()) - before; n > 1 {
		l.Fatalf("watchIdle called Watch %d times, want once", n)
	}
}

func (s *trial) handle(l *lab.Lab, ev *feedv1.Event) {
	s.mu.Lock()
	switch n := len(s.handled); {
	case s.over:
		l.Errorf("handle was called for event %q after watchIdle had returned", ev.GetId())
	case s.running:
		l.Errorf("handle was called for event %q while it ran for another, want one call at a time", ev.GetId())
	case ev.GetId() != strconv.Itoa(n+1):
		l.Errorf("handle was called for event %q, want event %d: each once, in order, and no other", ev.GetId(), n+1)
	}
	s.running, s.handled = true, append(s.handled, ev.GetId())
	s.mu.Unlock()
	time.Sleep(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.quiet = false, time.Now()
}

// name says what an error is.
func name(err error) string {
	switch {
	case err == nil:
		return "no error"
	case errors.Is(err, ErrIdle):
		return "ErrIdle"
	default:
		return fmt.Sprintf("code %v (%s)", codeOf(err), status.Convert(err).Message())
	}
}

// codeOf is what an error says. A context's own error counts as its code.
func codeOf(err error) codes.Code {
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

// wantIdle checks that the silence after n events was bounded. since says what
// it began with.
func (s *trial) wantIdle(l *lab.Lab, what string, n int, since string) {
	l.Helper()
	silence := s.returned.Sub(s.quiet)
	shown := silence.Round(time.Millisecond)
	switch {
	case len(s.handled) != n:
		l.Fatalf("%s: watchIdle returned %s after %d of %s", what, name(s.err), len(s.handled), events(n))
	case !errors.Is(s.err, ErrIdle):
		l.Fatalf("%s: watchIdle returned %s %v after %s, want ErrIdle", what, name(s.err), shown, since)
	case silence < s.idle:
		l.Fatalf("%s: watchIdle returned ErrIdle %v after %s, want %v", what, shown, since, s.idle)
	case silence > s.idle+toReturn:
		l.Fatalf("%s: watchIdle returned ErrIdle %v after %s, want %v, or a second more", what, shown, since, s.idle)
	}
}

// wantEnd checks that the stream ended with the code, which is OK for nil, and
// that watchIdle said so in time. at is when: the zero time is whenever.
func (s *trial) wantEnd(l *lab.Lab, what string, n int, want codes.Code, at time.Time) {
	l.Helper()
	switch late := s.returned.Sub(at); {
	case errors.Is(s.err, ErrIdle), codeOf(s.err) != want, want == codes.OK && s.err != nil:
		l.Fatalf("%s: watchIdle returned %s after %s, want %s", what, name(s.err), events(len(s.handled)), wanted(want))
	case len(s.handled) != n:
		l.Fatalf("%s: watchIdle returned %s, and handle was called for %d of %s", what, name(s.err), len(s.handled), events(n))
	case !at.IsZero() && late > toReturn:
		l.Fatalf("%s: watchIdle returned %s %v later, want at most 1s", what, name(s.err), late.Round(time.Millisecond))
	}
}

func events(n int) string {
	if n == 1 {
		return "1 event"
	}
	return fmt.Sprintf("%d events", n)
}

// came says that n events came, and that handle was slow.
func came(n int) string {
	if n == 1 {
		return fmt.Sprintf("idle is %v, 1 event came, handle took %v", limit, slow)
	}
	return fmt.Sprintf("idle is %v, %d events came, handle took %v for each", limit, n, slow)
}

func wanted(code codes.Code) string {
	if code == codes.OK {
		return "no error"
	}
	return "code " + code.String()
}

// wantNothingLeft looks for what watchIdle has left, with the connection open
// and its caller's context alive.
func wantNothingLeft(l *lab.Lab, what string) {
	l.Helper()
	if leaks := l.Leaks(); len(leaks) > 0 {
		l.Fatalf("%s. watchIdle returned, and a second later, with the connection open: %s", what, strings.Join(leaks, "\n"))
	}
}

// caller returns a context that ends with the test, and with it whatever waits
// for its end: what is left without that is the matter of tests of its own.
func caller(l *lab.Lab) (context.Context, context.CancelFunc) { return context.WithCancel(l.Context()) }

const aLot = 1000 * time.Hour

// runs runs body for each case, up to the first that fails.
func runs[T any](t *testing.T, cases []T, body func(*lab.Lab, T)) {
	t.Helper()
	for _, c := range cases {
		if !t.Failed() {
			lab.Run(t, func(l *lab.Lab) { body(l, c) }, lab.Lasts(aLot))
		}
	}
}

func TestWatchIdleHandsOverEachEvent(t *testing.T) {
	runs(t, []int{3, 200, 0}, func(l *lab.Lab, n int) {
		asked := make(chan string, 10)
		watch := sends(n, time.Millisecond, ends(0, nil))
		client, _ := l.Connect(server{watch: func(topic string, stream watchServer) error {
			asked <- topic
			return watch(topic, stream)
		}})
		ctx, cancel := caller(l)
		defer cancel()
		var s trial
		s.run(ctx, l, client, time.Minute)
		if len(asked) == 0 || <-asked != "deploys" {
			l.Fatalf("watchIdle was called for topic deploys, and the server was asked for another, or for none")
		}
		s.wantEnd(l, fmt.Sprintf("the topic had %s and ended with OK", events(n)), n, codes.OK, time.Time{})
	})
}

// Each event comes a second before the limit.
func TestEachEventBeginsTheSilenceAnew(t *testing.T) {
	type stream struct {
		n         int
		gap, idle time.Duration
	}
	runs(t, []stream{{5, 29 * time.Second, limit}, {200, 29 * time.Second, limit}, {2, 23 * time.Hour, 24 * time.Hour}}, func(l *lab.Lab, c stream) {
		client, _ := l.Connect(server{watch: sends(c.n, c.gap, ends(0, nil))})
		ctx, cancel := caller(l)
		defer cancel()
		s := trial{idle: c.idle}
		s.run(ctx, l, client, 500*time.Hour)
		s.wantEnd(l, fmt.Sprintf("idle is %v, %d events came %v apart, and the topic ended with OK", c.idle, c.n, c.gap), c.n, codes.OK, time.Time{})
	})
}

func TestWatchIdleEndsASilentTopic(t *testing.T) {
	type stream struct {
		n         int
		gap, idle time.Duration
	}
	runs(t, []stream{{3, time.Second, limit}, {1, 20 * time.Second, limit}, {5, time.Second, 2 * time.Second}, {2, time.Hour, 24 * time.Hour}}, func(l *lab.Lab, c stream) {
		client, _ := l.Connect(server{watch: sends(c.n, c.gap, isSilent)})
		ctx, cancel := caller(l)
		defer cancel()
		s := trial{idle: c.idle}
		s.run(ctx, l, client, 2*c.idle+time.Duration(c.n)*c.gap+time.Minute)
		s.wantIdle(l, fmt.Sprintf("idle is %v, %s came %v apart, and then none", c.idle, events(c.n), c.gap), c.n, "the last event")
	})
}

func TestTheSilenceBeginsWithTheCall(t *testing.T) {
	type stream struct {
		what  string
		watch script
		full  bool // the connection has no place for it
	}
	runs(t, []stream{
		{"the topic had no event", isSilent, false},
		{"the topic had a header after 20s, and no event", func(topic string, stream watchServer) error {
			if err := wait(stream, 20*time.Second); err != nil {
				return err
			}
			if err := stream.SendHeader(metadata.Pairs("version", "1")); err != nil {
				return err
			}
			return isSilent(topic, stream)
		}, false},
		{"the connection had no place for the stream", isSilent, true},
	}, func(l *lab.Lab, c stream) {
		link := l.NewLink()
		link.Serve(server{watch: c.watch}, grpc.MaxConcurrentStreams(1))
		client := feedv1.NewFeedServiceClient(link.Dial())
		ctx, cancel := caller(l)
		defer cancel()
		if c.full {
			if _, err := client.Watch(ctx, &feedv1.WatchRequest{}); err != nil {
				l.Fatal(err)
			}
		}
		var s trial
		s.run(ctx, l, client, 5*time.Minute)
		s.wantIdle(l, c.what, 0, "the call")
	})
}

// What is slow is the client: all events come while it handles the first, or
// one after the other, and none is missing at the end.
func TestASlowHandleIsNotSilence(t *testing.T) {
	const n = 15
	runs(t, []time.Duration{20 * time.Second, time.Millisecond}, func(l *lab.Lab, gap time.Duration) {
		client, _ := l.Connect(server{watch: sends(n, gap, ends(n*(slow-gap)+10*time.Second, nil))})
		ctx, cancel := caller(l)
		defer cancel()
		s := trial{takes: slow}
		s.run(ctx, l, client, time.Hour)
		s.wantEnd(l, fmt.Sprintf("idle is %v, %d events came %v apart, handle took %v for each, and the topic ended with OK", limit, n, gap, slow), n, codes.OK, time.Time{})
	})
}

func TestTheSilenceBeginsAnewAfterASlowHandle(t *testing.T) {
	runs(t, []int{1, 4}, func(l *lab.Lab, n int) {
		client, _ := l.Connect(server{watch: sends(n, time.Second, isSilent)})
		ctx, cancel := caller(l)
		defer cancel()
		s := trial{takes: slow}
		s.run(ctx, l, client, time.Hour)
		s.wantIdle(l, came(n)+", and no other event came", n, "the last handle")
	})
}

// What came before the end is handled before it is told.
func TestAnEndWhileHandleRunsIsNoSilence(t *testing.T) {
	type end struct {
		n    int
		want codes.Code // Unavailable: the connection breaks
	}
	runs(t, []end{
		{1, codes.OK}, {1, codes.NotFound}, {1, codes.Unavailable}, {20, codes.OK}, {20, codes.NotFound}, {20, codes.Unavailable},
	}, func(l *lab.Lab, c end) {
		what := fmt.Sprintf("%s, and while it ran for event 1, the topic ended with code %v", came(c.n), c.want)
		next := ends(20*time.Second, status.Error(c.want, "over"))
		if c.want == codes.Unavailable {
			what, next = came(c.n)+", and while it ran for event 1, the connection broke", isSilent
		}
		client, link := l.Connect(server{watch: sends(c.n, time.Second, next)})
		if c.want == codes.Unavailable {
			time.AfterFunc(40*time.Second, link.Cut)
		}
		ctx, cancel := caller(l)
		defer cancel()
		s := trial{takes: slow}
		s.run(ctx, l, client, time.Hour)
		s.wantEnd(l, what, c.n, c.want, s.quiet)
	})
}

// Every code, and a text that looks like another end.
func TestWatchIdleReturnsTheStatusOfTheServer(t *testing.T) {
	failures := []codes.Code{codes.NotFound} // the first is what a learner sees
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		failures = append(failures, code)
	}
	for n, text := range []string{"EOF", "context canceled", ErrIdle.Error()} {
		runs(t, failures, func(l *lab.Lab, code codes.Code) {
			client, _ := l.Connect(server{watch: sends(n, time.Second, ends(time.Second, status.Error(code, text)))})
			ctx, cancel := caller(l)
			defer cancel()
			at := time.Now().Add(time.Duration(n+1) * time.Second)
			var s trial
			s.run(ctx, l, client, 5*time.Minute)
			s.wantEnd(l, fmt.Sprintf("the server failed with code %v after %s", code, events(n)), n, code, at)
		})
	}
}

// How a caller ends its context.
type leaving struct {
	what string
	want codes.Code
	ends func(ctx context.Context, after time.Duration) (context.Context, func())
}

func cancels(cause error) func(context.Context, time.Duration) (context.Context, func()) {
	return func(ctx context.Context, after time.Duration) (context.Context, func()) {
		ctx, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(after, func() { cancel(cause) })
		return ctx, func() { cancel(nil) }
	}
}

var leavings = []leaving{
	{"the caller cancelled", codes.Canceled, cancels(nil)},
	{`the caller cancelled with the cause "the user left"`, codes.Canceled, cancels(errors.New("the user left"))},
	{"the caller cancelled with a cause that wraps ErrIdle", codes.Canceled, cancels(fmt.Errorf("another topic: %w", ErrIdle))},
	{"the caller cancelled with the cause ErrIdle", codes.Canceled, cancels(ErrIdle)},
	{"the caller's deadline passed", codes.DeadlineExceeded, func(ctx context.Context, after time.Duration) (context.Context, func()) {
		ctx, cancel := context.WithTimeout(ctx, after)
		return ctx, func() { cancel() }
	}},
}

func TestTheEndOfTheCallerIsNoSilence(t *testing.T) {
	runs(t, leavings, func(l *lab.Lab, c leaving) {
		client, _ := l.Connect(server{watch: sends(2, time.Second, isSilent)})
		const after = 12 * time.Second
		at := time.Now().Add(after)
		ctx, cancel := c.ends(l.Context(), after)
		defer cancel()
		var s trial
		s.run(ctx, l, client, 5*time.Minute)
		s.wantEnd(l, "2 events came, and 10s later "+c.what, 2, c.want, at)
	})
}

// It waits for handle. Events that came before the end may then still be handled.
func TestWatchIdleWaitsForHandleWhenTheCallerEnds(t *testing.T) {
	runs(t, leavings, func(l *lab.Lab, c leaving) {
		client, _ := l.Connect(server{watch: sends(1, time.Second, isSilent)})
		ctx, cancel := c.ends(l.Context(), 5*time.Second)
		defer cancel()
		at := time.Now().Add(time.Second + 2*lab.Latency + slow)
		s := trial{takes: slow}
		s.run(ctx, l, client, 5*time.Minute)
		s.wantEnd(l, c.what+" while handle ran for event 1, and handle returned 43s later", 1, c.want, at)
	})
}

func TestABrokenConnectionIsNoSilence(t *testing.T) {
	type end struct {
		what string
		n    int
		do   func(*lab.Link, *grpc.Server)
	}
	runs(t, []end{
		{"2 events came, and 10s later the connection broke", 2, func(link *lab.Link, _ *grpc.Server) { time.Sleep(12 * time.Second); link.Cut() }},
		{"2 events came, and 10s later the server was stopped", 2, func(_ *lab.Link, srv *grpc.Server) { time.Sleep(12 * time.Second); srv.Stop() }},
		{"there was no server", 0, nil},
	}, func(l *lab.Lab, c end) {
		link := l.NewLink()
		srv := link.Serve(server{watch: sends(2, time.Second, isSilent)})
		client := feedv1.NewFeedServiceClient(link.Dial())
		ctx, cancel := caller(l)
		defer cancel()
		at := time.Now().Add(12 * time.Second)
		if c.do != nil {
			go c.do(link, srv)
		} else {
			link.Cut()
			at = time.Now().Add(time.Millisecond)
			time.Sleep(time.Millisecond) // the client learns of it
		}
		var s trial
		s.run(ctx, l, client, 5*time.Minute)
		s.wantEnd(l, c.what, c.n, codes.Unavailable, at)
	})
}

// Nobody is told. What the client can see is a silent topic.
func TestADeadNetworkIsSilence(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(server{watch: sends(2, time.Second, ends(time.Second, nil))})
		ctx, cancel := caller(l)
		defer cancel()
		time.AfterFunc(2500*time.Millisecond, link.Blackhole)
		var s trial
		s.run(ctx, l, client, 5*time.Minute)
		s.wantIdle(l, "2 events came, and then the network swallowed everything", 2, "the last event")
	})
}

// Nobody but watchIdle ends this stream.
func TestNothingIsLeftOfASilentTopic(t *testing.T) {
	runs(t, []int{2, 0}, func(l *lab.Lab, n int) {
		client, _ := l.Connect(server{watch: sends(n, time.Second, isSilent)})
		var s trial
		s.run(l.Context(), l, client, 5*time.Minute)
		wantNothingLeft(l, fmt.Sprintf("%s came, and then none for longer than idle", events(n)))
	})
}

func TestNothingIsLeftOfAnyOtherEnd(t *testing.T) {
	runs(t, []codes.Code{codes.OK, codes.NotFound}, func(l *lab.Lab, code codes.Code) {
		client, _ := l.Connect(server{watch: sends(2, time.Second, ends(time.Second, status.Error(code, "over")))})
		var s trial
		s.run(l.Context(), l, client, 5*time.Minute)
		wantNothingLeft(l, fmt.Sprintf("2 events came, and the topic ended with code %v", code))
	})
}

// Events that came before may be handled, or not.
func TestNothingIsLeftWhenTheCallerEndsWhileEventsWait(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const n = 300 // more than a buffer has room for
		client, _ := l.Connect(server{watch: sends(n, time.Millisecond, isSilent)})
		ctx, cancel := caller(l)
		defer cancel()
		time.AfterFunc(12*time.Second, cancel)
		s := trial{takes: slow}
		s.run(ctx, l, client, 5*time.Hour)
		what := fmt.Sprintf("%d events came, and the caller cancelled while handle ran for event 1", n)
		s.wantEnd(l, what, max(1, len(s.handled)), codes.Canceled, s.quiet)
		wantNothingLeft(l, what)
	}, lab.Lasts(aLot))
}
