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

	refuse int                  // which stream cannot be opened
	during func(call int) error // is called in handle, and is its result

	err      error
	returned time.Time
	mu       sync.Mutex // never held while something waits
	opened   map[string]time.Time
	open     int // handlers
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
	name, again := req.GetTopic(), false
	s.note(func() {
		_, again = s.opened[name]
		s.opened[name] = time.Now()
		s.open++
	})
	defer s.note(func() { s.open-- })
	topic, ok := s.topics[name]
	if !ok || again {
		return status.Errorf(codes.AlreadyExists, "topic %q is watched, or nobody asked for it", name)
	}
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
		if err := stream.Send(&feedv1.Event{Id: strconv.Itoa(id + 1), Body: strings.Repeat("x", 1000)}); err != nil {
			return err
		}
	}
	if err := pause(cmp.Or(topic.then, 1000*time.Hour)); err != nil {
		return err
	}
	return topic.end
}

// recv is the client's end of a stream. A Recv that fails takes a while to return.
type recv struct {
	grpc.ClientStream
	on    *stage
	topic string
}

func (r *recv) SendMsg(m any) error {
	r.topic = m.(*feedv1.WatchRequest).GetTopic()
	return r.ClientStream.SendMsg(m)
}

func (r *recv) RecvMsg(m any) error {
	r.on.note(func() { r.on.pending++ })
	err := r.ClientStream.RecvMsg(m)
	if err != nil {
		time.Sleep(50 * time.Millisecond)
	}
	r.on.note(func() {
		r.on.pending--
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
			return &recv{ClientStream: stream, on: s}, nil
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
		case ev.GetId() != strconv.Itoa(n):
			fault = fmt.Sprintf("handle was called for event %s of %q, want event %d: each once, in order", ev.GetId(), topic, n)
		default:
			s.late = max(s.late, time.Since(s.sent[topic][n-1]))
		}
		if fault != "" && !s.Failed() {
			s.Errorf("%s: %s", s.what, fault)
		}
	})
	var err error
	if s.during != nil && !beside { // two calls of Settle would wait for each other
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
		topics[fmt.Sprintf("%03d", i)] = script{events: 1, gap: time.Hour, then: time.Hour}
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
	on(t, "for three topics with events at different times", map[string]script{
		"a": {events: 3, gap: 7 * time.Second, then: time.Minute},
		"b": {events: 5, gap: 3 * time.Second, then: time.Hour},
		"c": {then: 2 * time.Hour}, // is silent
	}, func(s *stage) {
		start = time.Now()
		s.call(10 * time.Hour)
		s.wantEvents(map[string]int{"a": 3, "b": 5, "c": 0})
		s.wantEnd(codes.OK, start.Add(2*time.Hour))
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
}

func TestATopicThatEndsWellEndsNoOther(t *testing.T) {
	on(t, "for three topics that end well, one at once, one after a minute, one after an hour", map[string]script{
		"a": {events: 2, gap: time.Minute, then: time.Hour}, "b": {events: 3, then: atOnce}, "c": {events: 1, gap: time.Minute, then: atOnce},
	}, func(s *stage) {
		start := time.Now()
		s.call(10 * time.Hour)
		s.wantEvents(map[string]int{"a": 2, "b": 3, "c": 1})
		s.wantEnd(codes.OK, start.Add(time.Hour+2*time.Minute))
	})
}

// Each status has a text that must not be taken for the io.EOF of a good end.
func TestTheFirstFailureEndsTheOthersAndIsReturned(t *testing.T) {
	for want := codes.Unauthenticated; want > codes.OK; want-- {
		on(t, fmt.Sprintf("for three topics, of which the second fails with %v after two events", want), map[string]script{
			"a": {events: 5, gap: time.Second}, "b": {events: 2, then: 3500 * time.Millisecond, end: status.Error(want, "EOF")}, "c": {then: time.Hour},
		}, func(s *stage) {
			start := time.Now()
			s.call(30 * time.Minute)
			s.wantEvents(map[string]int{"a": 3, "b": 2, "c": 0})
			s.wantEnd(want, start.Add(3500*time.Millisecond))
			if text := status.Convert(s.err).Message(); !strings.Contains(text, "EOF") {
				s.Fatalf("%s: watchAll returned code %v with the text %q, want that of the topic, %q", s.what, want, text, "EOF")
			}
		})
	}
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

// The end comes in the second call of handle. Others learn of it while it runs.
func TestWatchAllWaitsForHandle(t *testing.T) {
	for _, cancels := range []bool{true, false} {
		what, want := "the network is cut", codes.Unavailable
		if cancels {
			what, want = "the caller cancels", codes.Canceled
		}
		on(t, "for three topics, and while handle runs "+what, map[string]script{"a": {events: 9, gap: time.Second}, "b": {}, "c": {}}, func(s *stage) {
			start, end := time.Now(), s.link.Cut
			if cancels {
				s.ctx, end = context.WithCancel(s.ctx)
				defer end()
			}
			s.during = func(call int) error {
				if call == 2 {
					end()
					s.Settle()
				}
				return nil
			}
			s.call(30 * time.Minute)
			s.wantEnd(want, start.Add(2*time.Second))
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
	for range 15 { // when the others end, the third has a place, or its context has ended
		on(t, "for three topics on a connection with room for two, while the first call of handle fails", topics, func(s *stage) {
			full, start := errors.New("the disk is full"), time.Now()
			s.during = func(int) error { return full }
			s.call(10 * time.Hour)
			s.wantError(full, start.Add(time.Minute))
		}, grpc.MaxConcurrentStreams(2))
	}
}

// A handle of an hour: one topic, so that nobody waits for a lock meanwhile.
func TestWatchAllLeavesToTheServerWhatHandleHasNotTaken(t *testing.T) {
	on(t, "for three topics with 50 events each at one instant, while handle is slow", map[string]script{
		"a": {events: 50, then: atOnce}, "b": {events: 50, then: atOnce}, "c": {events: 50, then: atOnce},
	}, func(s *stage) {
		start := time.Now()
		s.during = func(call int) error {
			if call == 1 {
				s.Settle()
			}
			return nil
		}
		s.call(30 * time.Minute)
		s.wantEvents(map[string]int{"a": 50, "b": 50, "c": 50})
		s.wantEnd(codes.OK, start)
	})
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
