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
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// script is a server whose Watch is a function.
type script struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(topic string, stream grpc.ServerStreamingServer[feedv1.Event]) error
}

func (s script) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	return s.watch(req.GetTopic(), stream)
}

// sends is a Watch that sends n events, one after each interval, and then does
// what comes next.
func sends(n int, interval time.Duration, next func(grpc.ServerStreamingServer[feedv1.Event]) error) script {
	return script{watch: func(_ string, stream grpc.ServerStreamingServer[feedv1.Event]) error {
		for i := range n {
			select {
			case <-time.After(interval):
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
			if err := stream.Send(eventNo(i + 1)); err != nil {
				return err
			}
		}
		return next(stream)
	}}
}

// What a topic does after its events.
func isSilent(stream grpc.ServerStreamingServer[feedv1.Event]) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

func isBusy(stream grpc.ServerStreamingServer[feedv1.Event]) error {
	for i := 0; ; i++ {
		ev := eventNo(1000 + i)
		ev.Body = strings.Repeat("x", 500)
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
}

func goesOn(stream grpc.ServerStreamingServer[feedv1.Event]) error {
	return sends(1000, time.Hour, isSilent).watch("", stream)
}

func ends(err error) func(grpc.ServerStreamingServer[feedv1.Event]) error {
	return func(grpc.ServerStreamingServer[feedv1.Event]) error { return err }
}

func eventNo(i int) *feedv1.Event { return &feedv1.Event{Id: strconv.Itoa(i), Topic: "deploys"} }

// A trial is one call of firstMatch, in which event number at matches, or makes
// match fail. With 0 no event matches.
type trial struct {
	at    int
	fails error
	odd   bool          // match says true beside its error
	takes time.Duration // what match takes for each event

	ev   *feedv1.Event
	err  error
	took time.Duration

	mu    sync.Mutex // an answer may call match on a goroutine of its own
	asked []string   // the ids that match was called with
	runs  string     // the id that match runs for
	over  bool       // match has matched or failed
}

// run calls firstMatch.
func (s *trial) run(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient, limit time.Duration) {
	l.Helper()
	start := time.Now()
	defer func() { // it comes beside a verdict of Call: an answer that opens again may hang
		if n := len(l.RPCs()); n != 1 {
			l.Fatalf("firstMatch called Watch %d times, want once", n)
		}
	}()
	l.Call("firstMatch", limit, func() {
		s.ev, s.err = firstMatch(ctx, client, "deploys", func(ev *feedv1.Event) (bool, error) {
			s.begin(l, ev.GetId())
			time.Sleep(s.takes)
			return s.end(ev.GetId())
		})
	})
	s.took = time.Since(start)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runs != "" {
		l.Fatalf("firstMatch returned code %v (%v) while match ran for event %s, want it to wait for match", codeOf(s.err), s.err, s.runs)
	}
}

func (s *trial) begin(l *lab.Lab, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case id == "":
		l.Fatalf("match was called for an event that nobody sent: %d had come, and then the stream ended", len(s.asked))
	case s.runs != "":
		l.Fatalf("match was called for event %s while it ran for event %s, want one call at a time", id, s.runs)
	case s.over && s.fails != nil:
		l.Fatalf("match failed for event %d and was then called for event %s, want no further call", s.at, id)
	case s.over:
		l.Fatalf("match said true for event %d and was then called for event %s, want no further call", s.at, id)
	}
	s.runs, s.asked = id, append(s.asked, id)
}

func (s *trial) end(id string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.runs = ""
	if id != strconv.Itoa(s.at) {
		return false, nil
	}
	s.over = true
	return s.fails == nil || s.odd, s.fails
}

// wantEvent checks that firstMatch returned event s.at, and when.
func (s *trial) wantEvent(l *lab.Lab, server string, after time.Duration) {
	l.Helper()
	var want []string
	for i := range s.at {
		want = append(want, strconv.Itoa(i+1))
	}
	switch {
	case s.err != nil:
		l.Fatalf("%s, event %d matches, and firstMatch returned code %v (%v), want the event", server, s.at, codeOf(s.err), s.err)
	case s.ev.GetId() != strconv.Itoa(s.at):
		l.Fatalf("%s, event %d matches, and firstMatch returned %s", server, s.at, lab.Text(s.ev))
	case !slices.Equal(s.asked, want):
		l.Fatalf("%s, event %d matches, and match was called for the events %q, want %q", server, s.at, s.asked, want)
	case s.took > after+time.Second:
		l.Fatalf("%s, event %d matches, and firstMatch returned %v after it had arrived, want at most 1s", server, s.at, s.took-after)
	}
}

// wantError checks that firstMatch returned an error with the code, and that
// it did so at most a second late.
func (s *trial) wantError(l *lab.Lab, what string, after time.Duration, want codes.Code) {
	l.Helper()
	switch {
	case s.took > after+time.Second:
		l.Fatalf("%s, and firstMatch returned %v later, want at most 1s", what, s.took-after)
	case s.err == nil:
		l.Fatalf("%s, and firstMatch returned %s and no error, want code %v", what, lab.Text(s.ev), want)
	case errors.Is(s.err, errNoMatch):
		l.Fatalf("%s, and firstMatch returned errNoMatch, want code %v: nobody knows whether an event would have matched", what, want)
	case codeOf(s.err) != want:
		l.Fatalf("%s, and firstMatch returned code %v (%v), want %v", what, codeOf(s.err), s.err, want)
	}
}

// codeOf is what an error says. A context's own error counts as its code.
func codeOf(err error) codes.Code {
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

// wantNothingLeft checks what firstMatch has left behind, with the connection
// open and its caller's context alive.
func wantNothingLeft(l *lab.Lab, what string) {
	l.Helper()
	if leaks := l.Leaks(); len(leaks) > 0 {
		l.Fatalf("%s, and a second later, with the connection open: %s", what, strings.Join(leaks, "\n"))
	}
}

// caller returns a context, and a function that ends it, and with it whatever
// needs its end: that is the matter of other tests. What is left even then is not.
func caller(l *lab.Lab) (context.Context, func()) {
	ctx, cancel := context.WithCancel(l.Context())
	return ctx, func() {
		cancel()
		if !l.Failed() {
			wantNothingLeft(l, "firstMatch returned, its caller's context ended")
		}
	}
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

func TestFirstMatchReturnsTheFirstEventThatMatches(t *testing.T) {
	runs(t, []int{3, 1, 100}, func(l *lab.Lab, at int) {
		client, _ := l.Connect(sends(at+2, time.Millisecond, isSilent))
		ctx, end := caller(l)
		defer end()
		s := &trial{at: at}
		s.run(ctx, l, client, time.Minute)
		s.wantEvent(l, fmt.Sprintf("the server sent %d events", at+2), time.Duration(at)*time.Millisecond+2*lab.Latency)
	})
}

func TestFirstMatchAsksForTheTopic(t *testing.T) {
	runs(t, []string{"deploys", "Alerts"}, func(l *lab.Lab, topic string) {
		asked := make(chan string, 10)
		client, _ := l.Connect(script{watch: func(topic string, _ grpc.ServerStreamingServer[feedv1.Event]) error {
			asked <- topic
			return nil
		}})
		ctx, end := caller(l)
		defer end()
		l.Call("firstMatch", time.Minute, func() {
			firstMatch(ctx, client, topic, func(*feedv1.Event) (bool, error) { return true, nil })
		})
		if len(asked) == 0 {
			l.Fatalf("firstMatch returned, and the server was never asked")
		}
		if got := <-asked; got != topic {
			l.Fatalf("firstMatch was called for %q and asked for %q", topic, got)
		}
	})
}

// The match is the last event for an hour, or for ever: what is there to wait for?
func TestFirstMatchDoesNotWaitForAnotherEvent(t *testing.T) {
	runs(t, []func(grpc.ServerStreamingServer[feedv1.Event]) error{isSilent, goesOn}, func(l *lab.Lab, next func(grpc.ServerStreamingServer[feedv1.Event]) error) {
		client, _ := l.Connect(sends(3, time.Millisecond, next))
		ctx, end := caller(l)
		defer end()
		s := &trial{at: 3}
		s.run(ctx, l, client, 5*time.Second)
		s.wantEvent(l, "after 3 events the topic is silent", 3*time.Millisecond+2*lab.Latency)
	})
}

const aMonth = 30 * 24 * time.Hour

func TestFirstMatchWaitsForMonths(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var limit time.Duration // of a stream that has one
		server := sends(2, aMonth, isSilent)
		client, _ := l.Connect(script{watch: func(topic string, stream grpc.ServerStreamingServer[feedv1.Event]) error {
			if at, ok := stream.Context().Deadline(); ok {
				limit = time.Until(at).Round(time.Second)
				return status.Error(codes.Internal, "the stream has a deadline")
			}
			return server.watch(topic, stream)
		}})
		ctx, end := caller(l)
		defer end()
		s := &trial{at: 2}
		s.run(ctx, l, client, 3*aMonth)
		if limit > 0 {
			l.Fatalf("the caller set no deadline, and firstMatch called Watch with one %v away, want none", limit)
		}
		s.wantEvent(l, "the caller set no deadline, the server sent 2 events with 30 days of silence before each", 2*aMonth+2*lab.Latency)
	}, lab.Lasts(4*aMonth))
}

func TestFirstMatchWaitsForASlowMatch(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const n, takes = 200, time.Minute
		client, _ := l.Connect(sends(n, time.Millisecond, isBusy))
		ctx, end := caller(l)
		defer end()
		s := &trial{at: n, takes: takes}
		s.run(ctx, l, client, n*takes+5*time.Second)
		s.wantEvent(l, fmt.Sprintf("match takes a minute, the server sent %d events and more", n), n*takes+time.Second)
	}, lab.Lasts(6*time.Hour))
}

// The topic ends while match runs for event 1. Events 2 and 3 have come.
func TestWhatMatchSaysCountsAfterTheEnd(t *testing.T) {
	for _, fails := range []error{nil, errDecode} {
		runs(t, []error{nil, status.Error(codes.DataLoss, "lost")}, func(l *lab.Lab, err error) {
			client, _ := l.Connect(sends(3, time.Millisecond, ends(err)))
			ctx, end := caller(l)
			defer end()
			s := &trial{at: 3, fails: fails, takes: time.Minute}
			s.run(ctx, l, client, 4*time.Minute)
			what := fmt.Sprintf("3 events came, the topic ended with code %v while match ran for event 1", codeOf(err))
			if fails != nil {
				s.wantMatchError(l, what)
			} else {
				s.wantEvent(l, what, 3*time.Minute+time.Second)
			}
		})
	}
}

// Either may count, the match or the caller's end. But match is waited for.
func TestFirstMatchWaitsForMatchWhenTheCallerEnds(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(sends(3, time.Millisecond, isSilent))
		ctx, cancel := context.WithTimeout(l.Context(), time.Minute/2)
		defer cancel()
		s := &trial{at: 1, takes: time.Minute}
		s.run(ctx, l, client, 2*time.Minute)
		if what := "the caller's deadline passed while match ran for event 1"; s.err != nil {
			s.wantError(l, what, time.Minute+time.Second, codes.DeadlineExceeded)
		} else {
			s.wantEvent(l, what, time.Minute+time.Second)
		}
	})
}

func TestFirstMatchSaysThatNothingMatched(t *testing.T) {
	runs(t, []int{3, 0}, func(l *lab.Lab, n int) {
		client, _ := l.Connect(sends(n, time.Millisecond, ends(nil)))
		ctx, end := caller(l)
		defer end()
		s := &trial{}
		s.run(ctx, l, client, time.Minute)
		switch what := fmt.Sprintf("the topic ended well after %d events, none of which matches", n); {
		case s.err == nil:
			l.Fatalf("%s, and firstMatch returned %s and no error, want errNoMatch", what, lab.Text(s.ev))
		case !errors.Is(s.err, errNoMatch):
			l.Fatalf("%s, and firstMatch returned %q, want errNoMatch", what, s.err)
		case len(s.asked) != n:
			l.Fatalf("%s, and match was called for the events %q", what, s.asked)
		}
	})
}

var errDecode = errors.New("cannot decode it")

func (s *trial) wantMatchError(l *lab.Lab, what string) {
	l.Helper()
	if !errors.Is(s.err, s.fails) {
		l.Fatalf("%s, for event %d match returned %v and the error %q, and firstMatch returned %s and the error %v, want the error of match",
			what, s.at, s.odd, s.fails, lab.Text(s.ev), s.err)
	}
}

func TestFirstMatchReturnsTheErrorOfMatch(t *testing.T) {
	runs(t, []*trial{
		{at: 2, fails: errDecode},
		{at: 2, fails: fmt.Errorf("cannot decode it: %w", io.EOF)},
		{at: 2, fails: errDecode, odd: true},
	}, func(l *lab.Lab, s *trial) {
		client, _ := l.Connect(sends(5, time.Millisecond, ends(nil)))
		ctx, end := caller(l)
		defer end()
		s.run(ctx, l, client, time.Minute)
		s.wantMatchError(l, "5 events came")
	})
}

// Every code, and a text that looks like a good end.
func TestFirstMatchReturnsTheStatusOfTheServer(t *testing.T) {
	failures := []codes.Code{codes.NotFound} // the first is what a learner sees
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		failures = append(failures, code)
	}
	for _, n := range []int{2, 0} {
		runs(t, failures, func(l *lab.Lab, want codes.Code) {
			client, _ := l.Connect(sends(n, time.Millisecond, ends(status.Error(want, "EOF"))))
			ctx, cancel := caller(l)
			defer cancel()
			s := &trial{}
			s.run(ctx, l, client, time.Minute)
			s.wantError(l, fmt.Sprintf("the server failed with code %v after %d events", want, n), time.Second, want)
		})
	}
}

// What is left of a search that a match, an error of match or the end of the
// topic has ended. Nobody else ends the stream: the caller's context lives on.
func wantReleased(t *testing.T, what string, server script, at int, fails error) {
	t.Helper()
	runs(t, []bool{false, true}, func(l *lab.Lab, deadline bool) {
		client, _ := l.Connect(server)
		ctx, what := l.Context(), what
		if deadline { // made from l.Context it would count as left
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			what += " (the caller has a deadline in an hour)"
		}
		s := &trial{at: at, fails: fails}
		s.run(ctx, l, client, 5*time.Second)
		wantNothingLeft(l, what+". firstMatch returned")
	})
}

func TestNothingIsLeftOfAMatch(t *testing.T) {
	wantReleased(t, "event 3 matched, then the topic was silent", sends(3, time.Millisecond, isSilent), 3, nil)
}

func TestNothingIsLeftOfAMatchInABusyTopic(t *testing.T) {
	wantReleased(t, "event 3 matched, and the topic had more than the client's window takes", sends(3, time.Millisecond, isBusy), 3, nil)
}

func TestNothingIsLeftOfAMatchAtTheEnd(t *testing.T) {
	wantReleased(t, "event 3 matched, it was the last, and the server ended the stream", sends(3, time.Millisecond, ends(nil)), 3, nil)
}

func TestNothingIsLeftOfAMatchBeforeAFailure(t *testing.T) {
	wantReleased(t, "event 3 matched, and the server failed after it", sends(3, time.Millisecond, ends(status.Error(codes.Internal, "broken"))), 3, nil)
}

func TestNothingIsLeftWhenMatchFails(t *testing.T) {
	wantReleased(t, "match failed for event 3", sends(3, time.Millisecond, isSilent), 3, errDecode)
}

func TestNothingIsLeftWhenNothingMatched(t *testing.T) {
	wantReleased(t, "the topic ended without a match", sends(3, time.Millisecond, ends(nil)), 0, nil)
}

// An ending is what ends a search after 2.3 s, in which two events have come.
type ending struct {
	what string
	want codes.Code
	do   func(ctx context.Context, link *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc)
}

const endsAfter = 2300 * time.Millisecond

// wantEnd checks that firstMatch ends with it, and leaves nothing.
func wantEnd(t *testing.T, e ending) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		srv := link.Serve(sends(2, time.Millisecond, isSilent))
		conn := link.Dial()
		ctx, cancel := e.do(l.Context(), link, srv)
		s := &trial{}
		s.run(ctx, l, feedv1.NewFeedServiceClient(conn), time.Minute)
		s.wantError(l, e.what, endsAfter, e.want)
		cancel()
		wantNothingLeft(l, e.what+". firstMatch returned")
	})
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	wantEnd(t, ending{"the caller cancelled", codes.Canceled, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		end := func() { cancel(errors.New("the user left")) }
		time.AfterFunc(endsAfter, end)
		return ctx, end
	}})
}

func TestTheDeadlineOfTheCallerHolds(t *testing.T) {
	wantEnd(t, ending{"the caller's deadline passed", codes.DeadlineExceeded, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, endsAfter)
	}})
}

func TestFirstMatchEndsWithTheConnectionAndLeavesNothing(t *testing.T) {
	wantEnd(t, ending{"the connection broke", codes.Unavailable, func(ctx context.Context, link *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		time.AfterFunc(endsAfter, link.Cut)
		return ctx, func() {}
	}})
}

func TestFirstMatchEndsWithTheServerAndLeavesNothing(t *testing.T) {
	wantEnd(t, ending{"the server was stopped", codes.Unavailable, func(ctx context.Context, _ *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc) {
		time.AfterFunc(endsAfter, srv.Stop)
		return ctx, func() {}
	}})
}

func TestWithoutAServerFirstMatchLeavesNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(script{})
		link.Cut()
		time.Sleep(time.Millisecond) // the client learns of it
		s := &trial{}
		s.run(l.Context(), l, client, time.Minute)
		s.wantError(l, "there was no server", 0, codes.Unavailable)
		wantNothingLeft(l, "there was no server. firstMatch returned")
	})
}
