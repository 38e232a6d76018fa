package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
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
			if err := stream.Send(event(i + 1)); err != nil {
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
		ev := event(1000 + i)
		ev.Body = strings.Repeat("x", 500)
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
}

func goesOn(stream grpc.ServerStreamingServer[feedv1.Event]) error {
	for i := 1000; ; i++ {
		select {
		case <-time.After(time.Hour):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(event(i)); err != nil {
			return err
		}
	}
}

func ends(err error) func(grpc.ServerStreamingServer[feedv1.Event]) error {
	return func(grpc.ServerStreamingServer[feedv1.Event]) error { return err }
}

func event(i int) *feedv1.Event { return &feedv1.Event{Id: strconv.Itoa(i), Topic: "deploys"} }

// A search is one call of firstMatch, in which event number at matches, or makes
// match fail. With 0 no event matches.
type search struct {
	at    int
	fails error
	takes time.Duration // what match takes for each event

	asked []string // the ids that match was called with
	ev    *feedv1.Event
	err   error
	took  time.Duration
}

// run calls firstMatch.
func (s *search) run(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient, limit time.Duration) {
	l.Helper()
	start := time.Now()
	l.Call("firstMatch", limit, func() {
		s.ev, s.err = firstMatch(ctx, client, "deploys", func(ev *feedv1.Event) (bool, error) {
			if ev.GetId() == "" {
				l.Fatalf("match was called for an event that nobody sent: %d had come, and then the stream ended", len(s.asked))
			}
			s.asked = append(s.asked, ev.GetId())
			time.Sleep(s.takes)
			if ev.GetId() == strconv.Itoa(s.at) {
				return s.fails == nil, s.fails
			}
			return false, nil
		})
	})
	s.took = time.Since(start)
	if n := len(l.RPCs()); n != 1 {
		l.Fatalf("firstMatch called Watch %d times, want once", n)
	}
}

// wantEvent checks that firstMatch returned event s.at, and when.
func (s *search) wantEvent(l *lab.Lab, server string, after time.Duration) {
	l.Helper()
	var want []string
	for i := range s.at {
		want = append(want, strconv.Itoa(i+1))
	}
	switch {
	case s.err != nil:
		l.Fatalf("%s, event %d matches, and firstMatch returned code %v (%v), want the event", server, s.at, code(s.err), s.err)
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
func (s *search) wantError(l *lab.Lab, what string, after time.Duration, want codes.Code) {
	l.Helper()
	switch {
	case s.took > after+time.Second:
		l.Fatalf("%s, and firstMatch returned %v later, want at most 1s", what, s.took-after)
	case s.err == nil:
		l.Fatalf("%s, and firstMatch returned %s and no error, want code %v", what, lab.Text(s.ev), want)
	case errors.Is(s.err, io.EOF):
		l.Fatalf("%s, and firstMatch returned io.EOF, want code %v", what, want)
	case errors.Is(s.err, errNoMatch):
		l.Fatalf("%s, and firstMatch returned errNoMatch, want code %v: nobody knows whether an event would have matched", what, want)
	case code(s.err) != want:
		l.Fatalf("%s, and firstMatch returned code %v (%v), want %v", what, code(s.err), s.err, want)
	}
}

// code is what an error says. A context's own error counts as its code.
func code(err error) codes.Code {
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
		l.Fatalf("%s. firstMatch returned, and a second later, with the connection open: %s", what, strings.Join(leaks, "\n"))
	}
}

// caller returns a context that the test ends, and with it whatever firstMatch
// has left: that is the matter of other tests.
func caller(l *lab.Lab) (context.Context, context.CancelFunc) {
	return context.WithCancel(l.Context())
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
		ctx, cancel := caller(l)
		defer cancel()
		s := &search{at: at}
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
		ctx, cancel := caller(l)
		defer cancel()
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
		ctx, cancel := caller(l)
		defer cancel()
		s := &search{at: 3}
		s.run(ctx, l, client, 5*time.Second)
		s.wantEvent(l, "after 3 events the topic is silent", 3*time.Millisecond+2*lab.Latency)
	})
}

const twoDays = 48 * time.Hour

func TestFirstMatchWaitsForDays(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(sends(2, twoDays, isSilent))
		ctx, cancel := caller(l)
		defer cancel()
		s := &search{at: 2}
		s.run(ctx, l, client, 3*twoDays)
		s.wantEvent(l, "the caller set no deadline, the server sent 2 events with two days of silence before each", 2*twoDays+2*lab.Latency)
	}, lab.Lasts(4*twoDays))
}

func TestFirstMatchWaitsForASlowMatch(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const n, takes = 200, time.Minute
		client, _ := l.Connect(sends(n, time.Millisecond, isBusy))
		ctx, cancel := caller(l)
		defer cancel()
		s := &search{at: n, takes: takes}
		s.run(ctx, l, client, 2*n*takes)
		s.wantEvent(l, fmt.Sprintf("match takes a minute, the server sent %d events and more", n), n*takes+time.Second)
	}, lab.Lasts(6*time.Hour))
}

func TestFirstMatchSaysThatNothingMatched(t *testing.T) {
	runs(t, []int{3, 0}, func(l *lab.Lab, n int) {
		client, _ := l.Connect(sends(n, time.Millisecond, ends(nil)))
		ctx, cancel := caller(l)
		defer cancel()
		s := &search{}
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

func TestFirstMatchReturnsTheErrorOfMatch(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(sends(5, time.Millisecond, ends(nil)))
		ctx, cancel := caller(l)
		defer cancel()
		s := &search{at: 2, fails: errDecode}
		s.run(ctx, l, client, time.Minute)
		if !errors.Is(s.err, errDecode) || len(s.asked) != 2 {
			l.Fatalf("match failed for event 2, and firstMatch returned %v after asking for the events %q, want the error of match and no further call", s.err, s.asked)
		}
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
			s := &search{}
			s.run(ctx, l, client, time.Minute)
			s.wantError(l, fmt.Sprintf("the server failed with code %v after %d events", want, n), time.Second, want)
		})
	}
}

// An end is what ends a search after 2.3 s, in which two events have come.
type end struct {
	what string
	want codes.Code
	do   func(ctx context.Context, link *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc)
}

const after = 2300 * time.Millisecond

// wantEnd checks that firstMatch ends with it, and leaves nothing.
func wantEnd(t *testing.T, e end) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		srv := link.Serve(sends(2, time.Millisecond, isSilent))
		conn := link.Dial()
		ctx, cancel := e.do(l.Context(), link, srv)
		s := &search{}
		s.run(ctx, l, feedv1.NewFeedServiceClient(conn), time.Minute)
		s.wantError(l, e.what, after, e.want)
		cancel()
		wantNothingLeft(l, e.what)
	})
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	wantEnd(t, end{"the caller cancelled", codes.Canceled, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(after, cancel)
		return ctx, cancel
	}})
}

func TestTheDeadlineOfTheCallerHolds(t *testing.T) {
	wantEnd(t, end{"the caller's deadline passed", codes.DeadlineExceeded, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, after)
	}})
}

func TestFirstMatchEndsWhenTheConnectionBreaks(t *testing.T) {
	wantEnd(t, end{"the connection broke", codes.Unavailable, func(ctx context.Context, link *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		time.AfterFunc(after, link.Cut)
		return ctx, func() {}
	}})
}

func TestFirstMatchEndsWhenTheServerStops(t *testing.T) {
	wantEnd(t, end{"the server was stopped", codes.Unavailable, func(ctx context.Context, _ *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc) {
		time.AfterFunc(after, srv.Stop)
		return ctx, func() {}
	}})
}

func TestFirstMatchSaysThatThereIsNoServer(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(script{})
		link.Cut()
		time.Sleep(time.Millisecond) // the client learns of it
		s := &search{}
		s.run(l.Context(), l, client, time.Minute)
		s.wantError(l, "there was no server", 0, codes.Unavailable)
		wantNothingLeft(l, "there was no server")
	})
}

// What is left of a search that a match, an error of match or the end of the
// topic has ended. Nobody else ends the stream: the caller's context lives on.
func wantReleased(t *testing.T, what string, server script, s search) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server)
		s.run(l.Context(), l, client, time.Minute)
		wantNothingLeft(l, what)
	}, lab.Lasts(time.Hour))
}

func TestNothingIsLeftOfAMatch(t *testing.T) {
	wantReleased(t, "event 3 matched, then the topic was silent", sends(3, time.Millisecond, isSilent), search{at: 3})
}

func TestNothingIsLeftOfAMatchInABusyTopic(t *testing.T) {
	wantReleased(t, "event 3 matched, and the topic had more than the client's window takes", sends(3, time.Millisecond, isBusy), search{at: 3})
}

func TestNothingIsLeftOfAMatchAtTheEnd(t *testing.T) {
	wantReleased(t, "event 3 matched, it was the last, and the server ended the stream", sends(3, time.Millisecond, ends(nil)), search{at: 3})
}

func TestNothingIsLeftOfAMatchBeforeAFailure(t *testing.T) {
	wantReleased(t, "event 3 matched, and the server failed after it", sends(3, time.Millisecond, ends(status.Error(codes.Internal, "broken"))), search{at: 3})
}

func TestNothingIsLeftWhenMatchFails(t *testing.T) {
	wantReleased(t, "match failed for event 3", sends(3, time.Millisecond, isSilent), search{at: 3, fails: errDecode})
}

func TestNothingIsLeftWhenNothingMatched(t *testing.T) {
	wantReleased(t, "the topic ended without a match", sends(3, time.Millisecond, ends(nil)), search{})
}
