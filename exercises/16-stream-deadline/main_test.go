package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
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

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// script is a server whose Watch is a function.
type script struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(topic string, stream watchServer) error
}

func (s script) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	return s.watch(req.GetTopic(), stream)
}

// A step is a part of what a handler does.
type step func(watchServer) error

// does is a server that goes through the steps and ends well. An answer that
// opens a stream again and again comes to an end.
func does(steps ...step) script {
	var calls atomic.Int32
	return script{watch: func(_ string, stream watchServer) error {
		if calls.Add(1) > 3 {
			return nil
		}
		for _, step := range steps {
			if err := step(stream); err != nil {
				return err
			}
		}
		return nil
	}}
}

func header(stream watchServer) error { return stream.SendHeader(nil) }

func stays(stream watchServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

func waits(d time.Duration) step {
	return func(stream watchServer) error {
		select {
		case <-time.After(d):
			return nil
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// sends sends the events from one number to another.
func sends(from, to int) step {
	return func(stream watchServer) error {
		for i := from; i <= to; i++ {
			if err := stream.Send(&feedv1.Event{Id: strconv.Itoa(i)}); err != nil {
				return err
			}
		}
		return nil
	}
}

// fails ends with a text that looks like a good end, and a detail.
func fails(code codes.Code) step {
	return func(watchServer) error {
		st, err := status.New(code, "EOF").WithDetails(&feedv1.Event{Id: "why"})
		if err != nil {
			return err
		}
		return st.Err()
	}
}

const (
	second = time.Second // what an answer may be late
	aDay   = 24 * time.Hour
	aMonth = 30 * aDay
)

// A trial is one call of tail. what says what the server does.
type trial struct {
	what  string
	takes time.Duration // what handle takes for each event

	err  error
	took time.Duration

	mu   sync.Mutex // an answer may call handle on a goroutine of its own
	got  []string   // the ids that handle was called with
	runs string     // the id that handle runs for
	over bool       // tail has returned
}

// run calls tail, which is to return after that time.
func (s *trial) run(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient, after time.Duration) {
	l.Helper()
	before := len(l.RPCs())
	defer func() { // beside a verdict of Call, too: an answer that opens again may hang
		if n := len(l.RPCs()) - before; n != 1 {
			l.Fatalf("%s, and tail called Watch %d times, want once", s.what, n)
		}
	}()
	start := time.Now()
	name := fmt.Sprintf("%s, and tail, which should have returned after %v,", s.what, after)
	l.Call(name, after+time.Hour, func() {
		s.err = tail(ctx, client, "deploys", func(ev *feedv1.Event) {
			s.begin(l, ev.GetId())
			time.Sleep(s.takes)
			s.end()
		})
	})
	s.took = time.Since(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	if s.runs != "" {
		l.Fatalf("%s, and tail returned while handle ran for event %s, want it to wait", s.what, s.runs)
	}
}

func (s *trial) begin(l *lab.Lab, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		l.Fatalf("handle was called for event %q after tail had returned", id)
	case s.runs != "":
		l.Fatalf("handle was called for event %q while it ran for event %s, want one call at a time", id, s.runs)
	case id != strconv.Itoa(len(s.got)+1):
		l.Fatalf("handle was called for event %q, want event %d: each event once and in order", id, len(s.got)+1)
	}
	s.runs, s.got = id, append(s.got, id)
}

func (s *trial) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = ""
}

// want checks how many events came, how tail ended, and that it did so after
// that time, or at most a second later. With -1 any number of events will do.
func (s *trial) want(l *lab.Lab, events int, code codes.Code, after time.Duration) {
	l.Helper()
	got := codeOf(s.err)
	took := s.took.Round(time.Millisecond)
	returned := fmt.Sprintf("tail returned code %v (%v)", got, s.err)
	if s.err == nil {
		returned = "tail returned no error"
	}
	wanted := fmt.Sprintf("code %v", code)
	if code == codes.OK {
		wanted = "no error"
	}
	switch {
	case got == code && events >= 0 && len(s.got) != events:
		l.Fatalf("%s, and %s after %v, when handle had been called for %d events, want %d before it returns",
			s.what, returned, took, len(s.got), events)
	case s.took < after-time.Millisecond:
		l.Fatalf("%s, and %s after %v, want it to stay until %v have passed", s.what, returned, took, after)
	case errors.Is(s.err, io.EOF):
		l.Fatalf("%s, and tail returned io.EOF, want %s", s.what, wanted)
	case got != code:
		l.Fatalf("%s, and %s after %v, want %s", s.what, returned, took, wanted)
	case s.took > after+second:
		l.Fatalf("%s, and %s after %v, want it %v after the beginning, or at most 1s later", s.what, returned, took, after)
	}
}

// codeOf is what an error says. A context's own error counts as its code.
func codeOf(err error) codes.Code {
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

// wantNothingLeft checks what tail has left behind, with the connection open
// and its caller's context alive.
func (s *trial) wantNothingLeft(l *lab.Lab) {
	l.Helper()
	if leaks := l.Leaks(); len(leaks) > 0 {
		l.Fatalf("%s. tail returned, and a second later, with the connection open: %s", s.what, strings.Join(leaks, "\n"))
	}
}

// A play is a trial against a server that does some steps.
type play struct {
	what   string
	server script
	takes  time.Duration // what handle takes
	events int
	want   codes.Code
	after  time.Duration
}

// runs plays each play, up to the first that fails.
func runs(t *testing.T, plays ...play) {
	t.Helper()
	for _, p := range plays {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(p.server)
			s := &trial{what: p.what, takes: p.takes}
			s.run(l.Context(), l, client, p.after)
			s.want(l, p.events, p.want, p.after)
			if st := status.Convert(s.err); p.want != codes.OK && (len(st.Details()) != 1 || !strings.Contains(st.Message(), "EOF")) {
				l.Fatalf("%s. Its status had a text and a detail, and tail returned %v with %d details, want the whole status",
					p.what, s.err, len(st.Details()))
			}
			s.wantNothingLeft(l)
		}, lab.Lasts(p.after+2*time.Hour))
	}
}

func TestTailHandsOnEveryEventInOrder(t *testing.T) {
	runs(t,
		play{"the server sent 5 events and ended well", does(header, sends(1, 5)), 0, 5, codes.OK, 0},
		play{"the server sent a header and 3000 events, and ended well", does(header, sends(1, 3000)), 0, 3000, codes.OK, 0},
		play{"the server sent 2 events without a header before them, and ended well", does(sends(1, 2)), 0, 2, codes.OK, 0},
		play{"the server sent a header and ended well", does(header), 0, 0, codes.OK, 0},
		play{"the server ended well, without a header or an event", does(), 0, 0, codes.OK, 0},
	)
}

func TestTailAsksForTheTopic(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var asked []string
		client, _ := l.Connect(script{watch: func(topic string, _ watchServer) error {
			asked = append(asked, topic)
			return nil
		}})
		for _, topic := range []string{"deploys", "Alerts"} {
			l.Call("tail", time.Minute, func() { tail(l.Context(), client, topic, func(*feedv1.Event) {}) })
		}
		if want := []string{"deploys", "Alerts"}; !slices.Equal(asked, want) {
			l.Fatalf("tail was called for the topics %q, and the server was asked for %q", want, asked)
		}
	})
}

func TestAnOpenStreamLivesForDays(t *testing.T) {
	runs(t,
		play{"the server opened the stream at once and sent an event after an hour, then ended well",
			does(header, waits(time.Hour), sends(1, 1)), 0, 1, codes.OK, time.Hour},
		play{"the server opened the stream and sent 2 events, each after 720h (30 days) of silence, then ended well",
			does(header, waits(aMonth), sends(1, 1), waits(aMonth), sends(2, 2)), 0, 2, codes.OK, 2 * aMonth},
		play{"the server opened the stream with its first event, after 1s, and ended it well 720h (30 days) later",
			does(waits(second), sends(1, 1), waits(aMonth)), 0, 1, codes.OK, aMonth + second},
	)
}

func TestAnOpeningMayTakeItsTime(t *testing.T) {
	runs(t, play{"the server opened the stream after 4.5s and ended it well a day later",
		does(waits(4500*time.Millisecond), header, sends(1, 1), waits(aDay)), 0, 1, codes.OK, aDay + 4500*time.Millisecond})
}

func TestHandleMayTakeItsTime(t *testing.T) {
	runs(t, play{"the server opened the stream at once and sent 20 events, for each of which handle took a minute",
		does(header, sends(1, 20)), time.Minute, 20, codes.OK, 20 * time.Minute})
}

// before is what happens before tail is called. It returns what undoes it.
type before func(l *lab.Lab, link *lab.Link, client feedv1.FeedServiceClient) (undo func())

func nothing(*lab.Lab, *lab.Link, feedv1.FeedServiceClient) func() { return func() {} }

func dead(_ *lab.Lab, link *lab.Link, _ feedv1.FeedServiceClient) func() {
	link.Blackhole()
	return link.Heal
}

func away(_ *lab.Lab, link *lab.Link, _ feedv1.FeedServiceClient) func() {
	link.Cut()
	time.Sleep(time.Millisecond) // the client has noticed
	return link.Heal
}

func awayAndDead(l *lab.Lab, link *lab.Link, client feedv1.FeedServiceClient) func() {
	away(l, link, client)
	return dead(l, link, client)
}

// back is a server that comes back 1.5 s after the beginning: gRPC, which dials
// again after 1 s and 2.6 s (give or take a fifth), is connected after 3.2 s.
func back(l *lab.Lab, link *lab.Link, client feedv1.FeedServiceClient) func() {
	time.AfterFunc(1500*time.Millisecond, link.Heal)
	return away(l, link, client)
}

// full takes the connection's only place, for a time.
func full(d time.Duration) before {
	return func(l *lab.Lab, _ *lab.Link, client feedv1.FeedServiceClient) func() {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(d, cancel)
		if _, err := client.Watch(ctx, &feedv1.WatchRequest{}); err != nil {
			l.Fatal(err)
		}
		time.Sleep(100 * time.Millisecond)
		return cancel
	}
}

// wantLate calls tail in a scene in which no stream gets open in time.
func wantLate(t *testing.T, what string, server script, before before) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(server, grpc.MaxConcurrentStreams(1))
		client := feedv1.NewFeedServiceClient(link.Dial())
		undo := before(l, link, client)
		s := &trial{what: what}
		s.run(l.Context(), l, client, openWithin)
		s.want(l, 0, codes.DeadlineExceeded, openWithin)
		undo()
		s.wantNothingLeft(l)
	}, lab.Lasts(2*time.Hour))
}

func TestAnOpeningEndsAfterFiveSeconds(t *testing.T) {
	wantLate(t, "the server took the stream and sent no header", does(stays), nothing)
	wantLate(t, "the server sent its header after an hour", does(waits(time.Hour), header, stays), nothing)
	wantLate(t, "the network was dead", does(header, stays), dead)
	wantLate(t, "there was no place on the connection", does(header, stays), full(aDay))
}

func TestAnOpeningWithoutAServerEndsAfterFiveSeconds(t *testing.T) {
	wantLate(t, "there was no server", does(header, stays), away)
	wantLate(t, "there was no connection, and the network was dead", does(header, stays), awayAndDead)
}

func TestAllWaitsOfAnOpeningShareTheFiveSeconds(t *testing.T) {
	wantLate(t, "the server was away for 1.5s, then it took the stream and sent no header", does(stays), back)
	wantLate(t, "there was no place on the connection for 3s, then the server took the stream and sent no header", does(stays), full(3*second))
}

func TestTailWaitsForAServerThatRestarts(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(does(header, sends(1, 1), waits(aDay)))
		back(l, link, client)
		s := &trial{what: "the server was away for 1.5s, then it opened the stream, and ended it well a day later"}
		s.run(l.Context(), l, client, aDay)
		s.want(l, 1, codes.OK, s.took) // when the connection is up again is up to gRPC
		if s.took > aDay+openWithin {
			l.Fatalf("%s, and tail returned after %v", s.what, s.took)
		}
	}, lab.Lasts(3*aDay))
}

// failures are all codes, and first those that a learner's own context has.
func failures() []codes.Code {
	all := []codes.Code{codes.NotFound, codes.Canceled, codes.DeadlineExceeded}
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		all = append(all, code)
	}
	return all
}

func TestARefusalIsToldAtOnce(t *testing.T) {
	for _, code := range failures() {
		runs(t,
			play{fmt.Sprintf("the server refused with code %v, without a header", code), does(fails(code)), 0, 0, code, 0},
			play{fmt.Sprintf("the server refused with code %v after 2s, without a header", code), does(waits(2*second), fails(code)), 0, 0, code, 2 * second},
		)
	}
}

func TestTheFailureOfAnOpenStreamIsTold(t *testing.T) {
	for _, code := range failures() {
		runs(t,
			play{fmt.Sprintf("the server opened the stream and failed with code %v after 2 events", code), does(header, sends(1, 2), fails(code)), 0, 2, code, 0},
			play{fmt.Sprintf("the server opened the stream and failed with code %v a day later", code), does(header, waits(aDay), fails(code)), 0, 0, code, aDay},
		)
	}
}

// An end is what ends a tail from outside. It may change the context.
type end func(ctx context.Context, after time.Duration, link *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc)

func cancels(ctx context.Context, after time.Duration, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	end := func() { cancel(errors.New("the user left")) }
	time.AfterFunc(after, end)
	return ctx, end
}

func expires(ctx context.Context, after time.Duration, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, after)
}

func cuts(ctx context.Context, after time.Duration, link *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
	time.AfterFunc(after, link.Cut)
	return ctx, func() {}
}

func stops(ctx context.Context, after time.Duration, _ *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc) {
	time.AfterFunc(after, srv.Stop)
	return ctx, func() {}
}

const whileAway = "while the server was away"

// wantEnd ends a tail while it opens and while it is open, soon and late. What
// is due to the network does not happen without one.
func wantEnd(t *testing.T, what string, end end, want codes.Code) {
	t.Helper()
	for _, tt := range []struct {
		while  string
		server script
		before before
		takes  time.Duration
		after  time.Duration
		late   time.Duration // how long handle still runs
	}{
		{"while the stream opened", does(stays), nothing, 0, 2300 * time.Millisecond, 0},
		{whileAway, does(stays), away, 0, 2300 * time.Millisecond, 0},
		{"after 2 events", does(header, sends(1, 2), stays), nothing, 0, 2300 * time.Millisecond, 0},
		{"a day after the opening", does(header, stays), nothing, 0, aDay, 0},
		{"while handle ran for event 1", does(header, sends(1, 1), stays), nothing, time.Minute, 30 * second, 30 * second},
	} {
		if t.Failed() || tt.while == whileAway && want == codes.Unavailable {
			continue
		}
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			srv := link.Serve(tt.server)
			client := feedv1.NewFeedServiceClient(link.Dial())
			undo := tt.before(l, link, client)
			ctx, cancel := end(l.Context(), tt.after, link, srv)
			s := &trial{what: what + " " + tt.while + ", " + tt.after.String() + " after the beginning", takes: tt.takes}
			s.run(ctx, l, client, tt.after+tt.late)
			s.want(l, -1, want, tt.after+tt.late)
			cancel()
			undo()
			s.wantNothingLeft(l)
		}, lab.Lasts(tt.after+2*time.Hour))
	}
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the caller cancelled", cancels, codes.Canceled)
}

func TestTheDeadlineOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the caller's deadline passed", expires, codes.DeadlineExceeded)
}

func TestTailEndsWithTheConnection(t *testing.T) {
	wantEnd(t, "the connection broke", cuts, codes.Unavailable)
}

func TestTailEndsWithTheServer(t *testing.T) {
	wantEnd(t, "the server was stopped", stops, codes.Unavailable)
}
