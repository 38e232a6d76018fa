package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
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

// What README.md allows.
const (
	soon   = time.Second // to open, to hand over, to return
	inHand = 10          // events of a topic that Recv has returned and handle has not begun with
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// A script is what a topic does.
type script struct {
	events int
	gap    time.Duration // before each event; 0 is all at once
	then   time.Duration // between the last event and the end; 0 is for ever
	end    error
	empty  bool // its events have no id and no body: they are equal
}

const atOnce = time.Nanosecond // as an end

// A stage is where watchAll is called: a server whose topics have scripts.
type stage struct {
	feedv1.UnimplementedFeedServiceServer
	*lab.Lab
	link   *lab.Link
	srv    *grpc.Server
	client feedv1.FeedServiceClient
	what   string
	topics map[string]script
	ctx    context.Context // the caller's

	refuse int                                 // which stream cannot be opened
	during func(call int) error                // is called in handle, and is its result
	gate   func(context.Context, string) error // is called before Recv, for a topic, and may fail in its place

	err      error
	returned time.Time
	mu       sync.Mutex // never held while something waits
	opened   map[string]time.Time
	open     int // handlers
	clients  []*recv
	streams  int // that were begun
	sent     map[string][]time.Time
	received map[string]int // by Recv
	handled  map[string]int
	late     time.Duration // the most between Send and handle
	ahead    int           // the most that Recv was ahead of handle
	pending  int           // calls of Recv
	running  int           // calls of handle
	calls    int
	slow     bool // handle takes its time
	stopped  bool // handle has returned an error
	over     bool // watchAll has returned
}

func (s *stage) note(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

func (s *stage) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	name := req.GetTopic()
	topic, asked := s.topics[name]
	_, limit := stream.Context().Deadline()
	_, callers := s.ctx.Deadline()
	s.note(func() {
		switch _, again := s.opened[name]; {
		case !asked:
			s.fault(fmt.Sprintf("Watch was called for topic %q, which nobody asked for", name))
		case again:
			s.fault(fmt.Sprintf("Watch was called again for topic %q, want one call for each topic", name))
		case limit && !callers:
			s.fault("Watch was called with a deadline, and the caller has none: want no limit of its own")
		}
		s.opened[name] = time.Now()
		s.open++
	})
	defer s.note(func() { s.open-- })
	pause := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
	for id := range topic.events {
		if topic.gap > 0 && pause(topic.gap) != nil {
			return stream.Context().Err()
		}
		s.note(func() { s.sent[name] = append(s.sent[name], time.Now()) })
		ev := &feedv1.Event{}
		if !topic.empty {
			ev = &feedv1.Event{Id: strconv.Itoa(id + 1), Body: strings.Repeat("x", 1000)}
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	if err := pause(cmp.Or(topic.then, 1000*time.Hour)); err != nil {
		return err
	}
	return topic.end
}

// fault says what has gone wrong, once. The caller holds mu.
func (s *stage) fault(what string) {
	if !s.Failed() {
		s.Errorf("%s: %s", s.what, what)
	}
}

// recv is the client's end of a stream. A Recv that fails takes a while to return.
type recv struct {
	grpc.ClientStream
	on    *stage
	ctx   context.Context
	topic string
	ended bool
}

func (r *recv) SendMsg(m any) error {
	r.topic = m.(*feedv1.WatchRequest).GetTopic()
	return r.ClientStream.SendMsg(m)
}

func (r *recv) RecvMsg(m any) error {
	r.on.note(func() { r.on.pending++ })
	var err error
	if r.on.gate != nil {
		err = r.on.gate(r.ctx, r.topic)
	}
	if err == nil {
		err = r.ClientStream.RecvMsg(m)
	}
	if err != nil && r.on.gate == nil {
		time.Sleep(50 * time.Millisecond)
	}
	r.on.note(func() {
		r.on.pending--
		r.ended = err != nil
		if err == nil {
			r.on.received[r.topic]++
		}
	})
	return err
}

// on runs a test with a server that has topics.
func on(t *testing.T, what string, topics map[string]script, test func(*stage), opts ...grpc.ServerOption) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		s := &stage{Lab: l, what: what, topics: topics, link: l.NewLink(), opened: map[string]time.Time{},
			sent: map[string][]time.Time{}, received: map[string]int{}, handled: map[string]int{}}
		s.srv = s.link.Serve(s, opts...)
		conn := s.link.Dial(grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn,
			method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			refused := false
			s.note(func() { s.streams++; refused = s.streams == s.refuse })
			if refused {
				return nil, status.Error(codes.ResourceExhausted, "no room for this stream")
			}
			stream, err := open(ctx, desc, conn, method, opts...)
			if err != nil {
				return nil, err
			}
			r := &recv{ClientStream: stream, on: s, ctx: ctx}
			s.note(func() { s.clients = append(s.clients, r) })
			return r, nil
		}))
		s.client = feedv1.NewFeedServiceClient(conn)
		s.ctx = l.Context()
		test(s)
	}, lab.Lasts(100*time.Hour))
}

// call calls watchAll, which has until by to return, and looks whether all of
// it has ended. The topics are in order of their names.
func (s *stage) call(by time.Duration) {
	s.Helper()
	names, running, pending := slices.Sorted(maps.Keys(s.topics)), 0, 0
	s.Call("watchAll, "+s.what+",", by, func() {
		err := watchAll(s.ctx, s.client, names, s.handle)
		s.note(func() { s.over, s.err, running, s.returned = true, err, s.running, time.Now() })
	})
	time.Sleep(time.Nanosecond) // what ends at this very instant has ended
	s.note(func() { pending = s.pending })
	if running > 0 {
		s.Fatalf("%s: watchAll returned %s while handle ran, want it to wait for handle", s.what, name(s.err))
	}
	if pending > 0 {
		s.Fatalf("%s: watchAll returned %s, and a part of it is still at work: %s", s.what, name(s.err), s.Stuck())
	}
	if s.Failed() {
		s.FailNow()
	}
}

func (s *stage) handle(topic string, ev *feedv1.Event) error {
	call, beside := 0, false
	s.note(func() {
		s.calls++
		s.running++
		s.handled[topic]++
		call, beside = s.calls, s.running > 1
		_, asked := s.topics[topic]
		fault := ""
		switch n := s.handled[topic]; {
		case s.over:
			fault = "handle was called after watchAll had returned"
		case beside:
			fault = "handle was called while it ran for another event, want one call at a time"
		case s.stopped:
			fault = "handle returned an error, and was called again"
		case !asked:
			fault = fmt.Sprintf("handle was called for an event of topic %q, which nobody asked for", topic)
		case ev.GetId() != strconv.Itoa(n) && !s.topics[topic].empty:
			fault = fmt.Sprintf("handle was called for event %s of %q, want event %d: each once, in order", ev.GetId(), topic, n)
		default:
			s.late = max(s.late, time.Since(s.sent[topic][n-1]))
		}
		if fault != "" {
			s.fault(fault)
		}
	})
	var err error
	if s.during != nil && !beside { // a call beside another one is a fault already
		err = s.during(call)
	}
	s.note(func() {
		for topic, n := range s.received { // what came while handle ran
			s.ahead = max(s.ahead, n-s.handled[topic])
		}
		s.running--
		s.stopped = s.stopped || err != nil
	})
	return err
}

// hour lets handle take an hour. It takes no time while somebody waits for a
// lock, which stops virtual time.
func (s *stage) hour() {
	s.Settle()
	if s.slow = true; !s.LockWanted() {
		time.Sleep(time.Hour)
	}
}

// unended counts the streams that watchAll may still receive from. The caller holds mu.
func (s *stage) unended() (n int) {
	for _, r := range s.clients {
		if r.ctx.Err() == nil && !r.ended {
			n++
		}
	}
	return n
}

// name says what an error is.
func name(err error) string {
	switch {
	case err == nil:
		return "no error"
	case codeOf(err) == codes.Unknown:
		return fmt.Sprintf("the error %q", err)
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

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// wantEvents checks what handle was called for.
func (s *stage) wantEvents(want map[string]int) {
	s.Helper()
	for _, topic := range slices.Sorted(maps.Keys(want)) {
		if got := s.handled[topic]; got != want[topic] {
			s.Fatalf("%s: watchAll returned %s, and handle was called for %s of %q, want %d", s.what, name(s.err), count(got, "event"), topic, want[topic])
		}
	}
}

// wantEnd checks the result, that it came within a second after at, and that
// nothing is left while the connection is open and the caller's context lives.
func (s *stage) wantEnd(want codes.Code, at time.Time) {
	s.Helper()
	late := s.returned.Sub(at)
	switch {
	case s.ahead > inHand:
		s.Fatalf("%s: watchAll had %d events of a topic from Recv that handle had not begun with, want at most %d", s.what, s.ahead, inHand)
	case s.late > soon && !s.slow:
		s.Fatalf("%s: an event was handled %v after it was sent, want at most %v", s.what, s.late.Round(time.Millisecond), soon)
	case codeOf(s.err) != want || want == codes.OK && s.err != nil:
		wanted := "code " + want.String()
		if want == codes.OK {
			wanted = "no error"
		}
		s.Fatalf("%s: watchAll returned %s, want %s", s.what, name(s.err), wanted)
	case late < 0:
		s.Fatalf("%s: watchAll returned %s %v too early", s.what, name(s.err), -late.Round(time.Millisecond))
	case late > soon:
		s.Fatalf("%s: watchAll returned %s %v later, want at most %v", s.what, name(s.err), late.Round(time.Millisecond), soon)
	}
	if leaks := s.Leaks(); len(leaks) > 0 {
		s.Fatalf("%s: watchAll returned %s, and a second later, with the connection open: %s", s.what, name(s.err), strings.Join(leaks, "\n"))
	}
}

// wantError is wantEnd for an error of handle.
func (s *stage) wantError(want error, at time.Time) {
	s.Helper()
	if !errors.Is(s.err, want) {
		s.Fatalf("%s: watchAll returned %s, want the error of handle, %q", s.what, name(s.err), want)
	}
	s.wantEnd(codeOf(s.err), at)
}

func TestWatchAllOpensAllStreamsAtOnce(t *testing.T) {
	topics := map[string]script{}
	want := map[string]int{}
	for i := range 100 {
		later := time.Duration(i) * time.Second // no two events at one instant: that is for other tests
		topics[fmt.Sprintf("%03d", i)] = script{events: 1, gap: time.Hour + later, then: time.Hour - later}
		want[fmt.Sprintf("%03d", i)] = 1
	}
	on(t, "for 100 topics that are silent for an hour", topics, func(s *stage) {
		start := time.Now()
		time.AfterFunc(soon, func() {
			open := 0
			s.note(func() { open = len(s.opened) })
			if open != len(topics) {
				s.Errorf("%s: after %v %s open, want all at once", s.what, soon, count(open, "stream"))
			}
		})
		s.call(1000 * time.Hour)
		s.wantEvents(want)
		s.wantEnd(codes.OK, start.Add(2*time.Hour))
	})
}

func TestWatchAllHandsOverTheEventsOfAllTopics(t *testing.T) {
	start := time.Now()
	on(t, "for four topics with events at different times, which end one after the other", map[string]script{
		"a": {events: 3, gap: 7 * time.Second, then: time.Minute},
		"b": {events: 5, gap: 3 * time.Second, then: time.Hour},
		"c": {then: 2 * time.Hour}, // is silent
		"d": {events: 3, then: atOnce},
	}, func(s *stage) {
		start = time.Now()
		s.call(10 * time.Hour)
		s.wantEnd(codes.OK, start.Add(2*time.Hour))
		s.wantEvents(map[string]int{"a": 3, "b": 5, "c": 0, "d": 3})
	})
	on(t, "for a topic with three events that are empty", map[string]script{
		"a": {events: 3, gap: time.Second, then: time.Hour, empty: true},
	}, func(s *stage) {
		start = time.Now()
		s.call(10 * time.Hour)
		s.wantEvents(map[string]int{"a": 3})
		s.wantEnd(codes.OK, start.Add(time.Hour+3*time.Second))
	})
	on(t, "for no topics", nil, func(s *stage) {
		start = time.Now()
		s.call(time.Minute)
		s.wantEnd(codes.OK, start)
	})
}

// All events come at one instant, and handle lets others run.
func TestHandleIsCalledForOneEventAtATime(t *testing.T) {
	on(t, "for three topics with two events each at one instant", map[string]script{
		"a": {events: 2, then: time.Hour}, "b": {events: 2, then: time.Hour}, "c": {events: 2, then: time.Hour},
	}, func(s *stage) {
		start := time.Now()
		s.during = func(int) error { s.Settle(); return nil }
		s.call(10 * time.Hour)
		s.wantEvents(map[string]int{"a": 2, "b": 2, "c": 2})
		s.wantEnd(codes.OK, start.Add(time.Hour))
	})
	on(t, "for two topics with two events each at one instant, while the first call of handle takes an hour", map[string]script{
		"a": {events: 2, then: 2 * time.Hour}, "b": {events: 2, then: 2 * time.Hour},
	}, func(s *stage) {
		start := time.Now()
		arrived := make(chan struct{})
		time.AfterFunc(time.Second, func() { close(arrived) })
		s.gate = func(context.Context, string) error { <-arrived; return nil }
		s.during = func(call int) error {
			if call == 1 {
				s.hour()
			}
			return nil
		}
		s.call(10 * time.Hour)
		s.wantEvents(map[string]int{"a": 2, "b": 2})
		s.wantEnd(codes.OK, start.Add(2*time.Hour))
	})
}

// Each status has a text that must not be taken for the io.EOF of a good end.
func TestTheFirstFailureEndsTheOthersAndIsReturned(t *testing.T) {
	const text = "unexpected EOF in the log"
	for want := codes.Unauthenticated; want > codes.OK; want-- {
		on(t, fmt.Sprintf("for three topics, of which the server fails the second with %v after two events", want), map[string]script{
			"a": {events: 5, gap: time.Second}, "b": {events: 2, then: 3500 * time.Millisecond, end: status.Error(want, text)}, "c": {then: time.Hour},
		}, func(s *stage) {
			start := time.Now()
			s.call(30 * time.Minute)
			s.wantEvents(map[string]int{"a": 3, "b": 2, "c": 0})
			s.wantEnd(want, start.Add(3500*time.Millisecond))
			if got := status.Convert(s.err).Message(); !strings.Contains(got, text) {
				s.Fatalf("%s: watchAll returned code %v with the text %q, want that of the topic, %q", s.what, want, got, text)
			}
		})
	}
}

// Nobody waits for a lock while handle sleeps: only one topic has events.
func TestWhatATopicSentBeforeItFailedIsHandled(t *testing.T) {
	on(t, "for a silent topic, and one that sends five events and fails at once, while each call of handle takes a minute", map[string]script{
		"a": {}, "b": {events: 5, then: atOnce, end: status.Error(codes.DataLoss, "the log is damaged")},
	}, func(s *stage) {
		start := time.Now()
		s.slow = true
		s.during = func(int) error { time.Sleep(time.Minute); return nil }
		s.call(30 * time.Minute)
		s.wantEvents(map[string]int{"b": 5})
		s.wantEnd(codes.DataLoss, start.Add(5*time.Minute))
	})
}

func TestTheErrorOfHandleEndsAllAndIsReturned(t *testing.T) {
	for _, want := range []error{errors.New("the disk is full"), io.EOF, context.Canceled, status.Error(codes.NotFound, "no such disk")} {
		on(t, fmt.Sprintf("for three topics, while the fourth call of handle returns the error %q", want), map[string]script{
			"a": {events: 5, gap: time.Second}, "b": {events: 5, gap: 1300 * time.Millisecond}, "c": {},
		}, func(s *stage) {
			start := time.Now()
			s.during = func(call int) error {
				if call == 4 {
					return want
				}
				return nil
			}
			s.call(30 * time.Minute)
			s.wantError(want, start.Add(2600*time.Millisecond))
		})
	}
}

// The others have an event in hand, and wait.
func TestHandleIsNotCalledAgainAfterItsError(t *testing.T) {
	for _, fails := range []int{1, 3} {
		on(t, fmt.Sprintf("for three topics with five events each at one instant, while call %d of handle fails", fails), map[string]script{
			"a": {events: 5}, "b": {events: 5}, "c": {events: 5},
		}, func(s *stage) {
			full, start := errors.New("the disk is full"), time.Now()
			s.during = func(call int) error {
				s.Settle()
				if call == fails {
					return full
				}
				return nil
			}
			s.call(30 * time.Minute)
			s.wantError(full, start)
		})
	}
}

func TestWatchAllReturnsWhenItsCallerLeaves(t *testing.T) {
	for _, tt := range []struct {
		what  string
		want  codes.Code
		after time.Duration
		leave func(context.Context) (context.Context, func())
	}{
		{"whose caller cancels after 5s, with a cause,", codes.Canceled, 5 * time.Second, func(ctx context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(ctx)
			time.AfterFunc(5*time.Second, func() { cancel(io.EOF) })
			return ctx, func() { cancel(nil) }
		}},
		{"whose caller has a deadline of 5s,", codes.DeadlineExceeded, 5 * time.Second, func(ctx context.Context) (context.Context, func()) {
			return context.WithTimeout(ctx, 5*time.Second)
		}},
		{"whose caller has cancelled before,", codes.Canceled, 0, func(ctx context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}},
	} {
		on(t, tt.what+" for two topics", map[string]script{"a": {events: 1, gap: time.Second}, "b": {}}, func(s *stage) {
			start := time.Now()
			var cancel func()
			s.ctx, cancel = tt.leave(s.ctx)
			defer cancel()
			s.call(30 * time.Minute)
			s.wantEnd(tt.want, start.Add(tt.after))
		})
	}
}

func TestWatchAllReturnsWhenTheConnectionBreaks(t *testing.T) {
	for _, end := range []struct {
		what  string
		do    func(*stage)
		after time.Duration
	}{
		{"the network is cut after 5s", func(s *stage) { s.link.Cut() }, 5 * time.Second},
		{"the server stops after 5s", func(s *stage) { s.srv.Stop() }, 5 * time.Second},
		{"there is no server", func(s *stage) { s.link.Cut(); time.Sleep(time.Second) }, 0},
	} {
		on(t, "for three topics, and "+end.what, map[string]script{"a": {events: 1, gap: time.Second}, "b": {}, "c": {events: 1}}, func(s *stage) {
			if end.after == 0 {
				end.do(s)
			} else {
				time.AfterFunc(end.after, func() { end.do(s) })
			}
			start := time.Now()
			s.call(30 * time.Minute)
			s.wantEnd(codes.Unavailable, start.Add(end.after))
		})
	}
}

func TestWatchAllWaitsForHandle(t *testing.T) {
	on(t, "for three topics, and while handle runs the network is cut", map[string]script{"a": {events: 9, gap: time.Second}, "b": {}, "c": {}}, func(s *stage) {
		start := time.Now()
		s.during = func(call int) error {
			if call == 2 {
				s.link.Cut()
				s.Settle()
			}
			return nil
		}
		s.call(30 * time.Minute)
		s.wantEnd(codes.Unavailable, start.Add(2*time.Second))
	})
}

// All topics but b have an event in hand when handle is called first.
func TestTheFirstEndCountsWhileHandleRuns(t *testing.T) {
	for _, tt := range []struct {
		what string
		want codes.Code
		do   func(fail, cancel func()) error // in handle
	}{
		{"topic b fails", codes.DataLoss, func(fail, _ func()) error { fail(); return nil }},
		{"topic b fails, and then handle returns an error", codes.DataLoss, func(fail, _ func()) error { fail(); return io.EOF }},
		{"topic b fails, and then the caller cancels", codes.DataLoss, func(fail, cancel func()) error { fail(); cancel(); return nil }},
		{"the caller cancels", codes.Canceled, func(_, cancel func()) error { cancel(); return nil }},
	} {
		topic := script{events: 1}
		on(t, "for four topics, and while handle runs for one "+tt.what, map[string]script{"a": topic, "b": {}, "c": topic, "d": topic}, func(s *stage) {
			start, arrived, broken := time.Now(), make(chan struct{}), make(chan struct{})
			time.AfterFunc(time.Second, func() { close(arrived) })
			s.gate = func(ctx context.Context, topic string) error {
				if topic != "b" {
					<-arrived
					return nil
				}
				select {
				case <-broken:
					return status.Error(codes.DataLoss, "the log is damaged")
				case <-ctx.Done():
					return nil
				}
			}
			var cancel func()
			s.ctx, cancel = context.WithCancel(s.ctx)
			s.during = func(call int) error {
				if call > 1 {
					s.note(func() { s.fault("handle was called again after that, want no call but the one that ran") })
					return nil
				}
				s.Settle()
				return tt.do(func() {
					close(broken)
					s.Settle()
					s.note(func() {
						if open := s.unended(); open > 0 {
							s.fault(count(open, "other stream") + " left open until handle returns, want all ended at once")
						}
					})
				}, func() { cancel(); s.Settle() })
			}
			s.call(30 * time.Minute)
			cancel()
			s.wantEnd(tt.want, start.Add(time.Second))
		})
	}
}

func TestAStreamThatCannotBeOpenedEndsTheOthers(t *testing.T) {
	on(t, "for four topics, of which the third stream cannot be opened", map[string]script{
		"a": {events: 5, gap: time.Second}, "b": {}, "c": {}, "d": {},
	}, func(s *stage) {
		s.refuse = 3
		start := time.Now()
		s.call(30 * time.Minute)
		s.wantEnd(codes.ResourceExhausted, start)
	})
}

// The server allows two streams on a connection.
func TestATopicThatWaitsForItsStreamHoldsUpNoOther(t *testing.T) {
	topic := script{events: 2, gap: time.Minute, then: time.Minute}
	topics := map[string]script{"a": topic, "b": topic, "c": topic}
	on(t, "for three topics on a connection with room for two", topics, func(s *stage) {
		start := time.Now()
		s.call(10 * time.Hour)
		s.wantEvents(map[string]int{"a": 2, "b": 2, "c": 2})
		s.wantEnd(codes.OK, start.Add(6*time.Minute))
	}, grpc.MaxConcurrentStreams(2))
	// No two have an event at one instant: there is no second call of handle.
	topics = map[string]script{"a": {events: 2, gap: time.Minute}, "b": {events: 2, gap: 3 * time.Minute}, "c": {events: 2, gap: 5 * time.Minute}}
	for range 15 { // when the others end, the third has a place, or its context has ended
		on(t, "for three topics on a connection with room for two, while the first call of handle fails", topics, func(s *stage) {
			full, at := errors.New("the disk is full"), time.Now()
			s.during = func(int) error { at = time.Now(); return full }
			s.call(10 * time.Hour)
			s.wantError(full, at)
		}, grpc.MaxConcurrentStreams(2))
	}
}

// A handle of an hour: one topic, so that nobody waits for a lock meanwhile.
func TestWatchAllLeavesToTheServerWhatHandleHasNotTaken(t *testing.T) {
	on(t, "for a topic with 400 events, while the first call of handle takes an hour", map[string]script{"a": {events: 400, then: atOnce}}, func(s *stage) {
		start := time.Now()
		s.during = func(call int) error {
			s.slow = true
			if call == 1 {
				time.Sleep(time.Hour)
			}
			return nil
		}
		s.call(10 * time.Hour)
		s.wantEvents(map[string]int{"a": 400})
		s.wantEnd(codes.OK, start.Add(time.Hour))
	})
}
