package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
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

// kept is how many accepted events may wait for the stream (README.md).
const kept = 16

// A gated is the server's end of a stream on which each Send waits until the
// test lets it go on, or the stream ends.
type gated struct {
	grpc.ServerStream // what else is called panics
	ctx               context.Context
	end               context.CancelFunc

	mu     sync.Mutex
	in     []*sending // Sends that have not returned, oldest first
	sent   []string   // the events whose Send has returned nil
	closed bool       // Close of the fan-in has returned
	after  string     // a Send that came later
}

// A sending is one call of the stream's Send.
type sending struct {
	id, at string
	goOn   chan error
}

func (g *gated) Context() context.Context { return g.ctx }

func (g *gated) SendMsg(m any) error { return g.Send(m.(*feedv1.Event)) }

func (g *gated) Send(ev *feedv1.Event) error {
	s := &sending{ev.GetId(), caller(), make(chan error, 1)}
	g.mu.Lock()
	g.in = append(g.in, s)
	if g.closed {
		g.after = s.at
	}
	g.mu.Unlock()
	var err error
	select {
	case err = <-s.goOn:
	case <-g.ctx.Done():
		err = status.FromContextError(g.ctx.Err()).Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in = slices.DeleteFunc(g.in, func(o *sending) bool { return o == s })
	if err != nil {
		g.end() // as a server's Send does that fails
		return err
	}
	g.sent = append(g.sent, s.id)
	return nil
}

// caller is the line of answer.go that called.
func caller() string {
	pc := make([]uintptr, 50)
	frames := runtime.CallersFrames(pc[:runtime.Callers(1, pc)])
	for more := true; more; {
		var f runtime.Frame
		if f, more = frames.Next(); filepath.Base(f.File) == "answer.go" {
			return fmt.Sprintf("answer.go:%d", f.Line)
		}
	}
	return "a goroutine of its own"
}

// waitsAt is the line of answer.go at which a goroutine is in method. Stuck of
// the lab lets time pass, which a lock that somebody waits for does not allow.
func waitsAt(method string) string {
	buf := make([]byte, 4<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "(*fanIn)."+method+"(") {
			if at := regexp.MustCompile(`answer\.go:\d+`).FindString(g); at != "" {
				return at
			}
		}
	}
	return "answer.go"
}

// A producer calls Send with numbered events, one after the other. It leaves at
// the first error, or is stubborn.
type producer struct {
	name     string
	n        int
	stubborn bool

	// Guarded by the stream's mu.
	accepted []string
	refused  []string
	errs     []error
	panicked string
	left     bool
}

func (p *producer) run(f *fanIn, mu *sync.Mutex) {
	defer func() {
		mu.Lock()
		defer mu.Unlock()
		if r := recover(); r != nil {
			p.panicked = fmt.Sprintf("%v (%s)", r, caller())
		}
		p.left = true
	}()
	for i := range p.n {
		id := fmt.Sprintf("%s/%d", p.name, i+1)
		err := f.Send(&feedv1.Event{Id: id, Topic: p.name})
		mu.Lock()
		if err == nil {
			p.accepted = append(p.accepted, id)
		} else {
			p.refused, p.errs = append(p.refused, id), append(p.errs, err)
		}
		mu.Unlock()
		if err != nil && !p.stubborn {
			return
		}
	}
}

// A stage is a fan-in on a gated stream, and its producers. The test looks at
// it when all goroutines wait, and no time passes meanwhile.
type stage struct {
	*lab.Lab
	*gated
	f         *fanIn
	producers []*producer
	closing   bool
	atClose   string // what was wrong when Close returned
}

func on(t *testing.T, ttl time.Duration, test func(*stage)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		g := new(gated)
		g.ctx, g.end = context.WithTimeout(l.Context(), ttl)
		defer g.end() // whoever waits for the stream is free
		test(&stage{Lab: l, gated: g, f: newFanIn(g)})
	}, lab.Lasts(24*time.Hour))
}

// produce starts producers of n events each.
func (s *stage) produce(producers, n int, stubborn bool) {
	for range producers {
		p := &producer{name: fmt.Sprint(len(s.producers) + 1), n: n, stubborn: stubborn}
		s.producers = append(s.producers, p)
		go p.run(s.f, &s.mu)
	}
}

// unsent returns the events that were accepted and not sent.
func (s *stage) unsent() (ids []string) {
	for _, p := range s.producers {
		for _, id := range p.accepted {
			if !slices.Contains(s.sent, id) {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// close calls Close.
func (s *stage) close() {
	s.closing = true
	go func() {
		s.f.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed = true
		switch unsent := s.unsent(); {
		case len(s.in) > 0:
			s.atClose = fmt.Sprintf("Close returned while the stream's Send was at work (%s): a handler that returns now ends the stream under it", s.in[0].at)
		case len(unsent) > 0 && s.ctx.Err() == nil:
			s.atClose = fmt.Sprintf("Close returned, and %d events for which Send had returned nil were not sent, such as %s (the first is 1/1, of producer 1)", len(unsent), unsent[0])
		}
	}()
}

// settle waits until all goroutines wait, and looks for what may never be.
func (s *stage) settle() {
	s.Helper()
	s.Settle()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.producers {
		if p.panicked != "" {
			s.Fatalf("Send panicked: %s; Close had %s", p.panicked, map[bool]string{true: "been called", false: "not been called"}[s.closing])
		}
	}
	switch {
	case len(s.in) > 1:
		s.Fatalf("%d goroutines are in the stream's Send at the same time, at %s and %s: want one at a time", len(s.in), s.in[0].at, s.in[1].at)
	case s.after != "":
		s.Fatalf("the stream's Send was called after Close had returned (%s)", s.after)
	case s.atClose != "":
		s.Fatal(s.atClose)
	}
}

// step lets the Send that waits go on, and reports whether there was one.
func (s *stage) step() bool {
	s.Helper()
	s.settle()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.in) == 0 {
		return false
	}
	s.in[0].goOn <- nil
	return true
}

// drain lets everything be sent, n events at most.
func (s *stage) drain(n int) {
	s.Helper()
	for s.step() {
		if n--; n < 0 {
			s.Fatalf("the stream has taken %d events, more than there are", len(s.sent))
		}
	}
}

// wantClosed waits for Close to return, and checks what it promised.
func (s *stage) wantClosed(after string) {
	s.Helper()
	s.settle()
	if !s.closed {
		s.Fatalf("Close has not returned %s: it waits at %s", after, waitsAt("Close"))
	}
	s.wantFree("Close had returned")
	s.produce(1, 40, true)
	s.settle()
	p := s.producers[len(s.producers)-1]
	switch {
	case !p.left:
		s.Fatalf("a Send that was called after Close does not return: it waits at %s", waitsAt("Send"))
	case len(p.accepted) > 0:
		s.Fatalf("after Close had returned, Send returned nil for %d of %d events, which nobody sends any more", len(p.accepted), p.n)
	}
}

// wantFree checks that no producer is in Send.
func (s *stage) wantFree(after string) {
	s.Helper()
	s.settle()
	stuck := 0
	for _, p := range s.producers {
		if !p.left {
			stuck++
		}
	}
	if stuck > 0 {
		s.Fatalf("%s, and %d of %d producers are still in Send, at %s", after, stuck, len(s.producers), waitsAt("Send"))
	}
}

// wantSent checks that what was accepted was sent, once and in order for each
// producer, and that nothing else was.
func (s *stage) wantSent() {
	s.Helper()
	var want, got []string
	for _, p := range s.producers {
		want = append(want, p.accepted...)
		for _, id := range s.sent {
			if strings.HasPrefix(id, p.name+"/") {
				got = append(got, id)
			}
		}
		for _, id := range p.refused {
			if slices.Contains(s.sent, id) {
				s.Fatalf("Send returned an error for event %s, which was sent all the same", id)
			}
		}
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			s.Fatalf("Send returned nil for %d events, and %d were sent: %s is missing", len(want), len(got), want[i])
		case i >= len(want) || got[i] != want[i]:
			s.Fatalf("event %s was sent too early or twice: Send returned nil for %d events, and %d were sent (4/2 is the second event of producer 4)", got[i], len(want), len(got))
		}
	}
}

func TestOneSendAtATime(t *testing.T) {
	on(t, time.Hour, func(s *stage) {
		s.produce(6, 4, false)
		s.drain(24)
		s.wantAll()
	})
}

// wantAll checks a stream that has taken everything, and closes the fan-in.
func (s *stage) wantAll() {
	s.Helper()
	s.wantFree("the stream has taken all that came")
	for _, p := range s.producers {
		if len(p.refused) > 0 {
			s.Fatalf("the stream took each event in the end, and Send returned an error for %s: %v", p.refused[0], p.errs[0])
		}
	}
	s.close()
	s.wantClosed("although everything was sent")
	s.wantSent()
}

func TestAnHourOfSilenceChangesNothing(t *testing.T) {
	on(t, 24*time.Hour, func(s *stage) {
		for range 3 {
			s.produce(3, 4, false)
			s.drain(12)
			s.wantFree("the stream has taken all that came, an hour after the events before")
			time.Sleep(time.Hour)
		}
		s.wantAll()
	})
}

func TestProducersWaitWhileTheClientDoesNotRead(t *testing.T) {
	for _, tt := range []struct{ producers, n int }{{1, 25}, {25, 1}} {
		on(t, 24*time.Hour, func(s *stage) {
			s.produce(tt.producers, tt.n, false)
			s.settle()
			if n := len(s.unsent()); n > kept {
				s.Fatalf("%d producers had %d events in all, and the stream's Send waited for the client: your Send returned nil for %d, which it keeps or has dropped, want at most %d",
					tt.producers, tt.producers*tt.n, n, kept)
			}
			if tt.producers == 1 { // or some may wait for a lock, and no time passes
				time.Sleep(time.Hour)
			}
			s.drain(25)
			s.wantAll()
		})
	}
}

// Close is called when so many Sends have returned, while others wait.
func TestCloseSendsWhatWasAccepted(t *testing.T) {
	for _, tt := range []struct{ producers, steps int }{{12, 0}, {12, 5}, {1, 1}, {0, 0}} {
		on(t, time.Hour, func(s *stage) {
			s.produce(tt.producers, 20, false)
			for range tt.steps {
				s.step()
			}
			s.settle()
			s.close()
			s.drain(tt.producers * 20)
			s.wantClosed("although the stream takes every event")
			s.wantSent()
		})
	}
}

func TestEveryProducerLearnsOfTheEnd(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.ResourceExhausted} {
		on(t, time.Hour, func(s *stage) {
			s.waiting()
			s.in[0].goOn <- status.Error(code, "the stream is broken")
			s.wantEnded(fmt.Sprintf("the stream's Send has failed with %v", code), code, codes.Canceled)
		})
	}
	on(t, time.Hour, func(s *stage) {
		s.waiting()
		s.end()
		s.wantEnded("the client has cancelled while the stream's Send waited", codes.Canceled)
	})
	on(t, time.Hour, func(s *stage) {
		s.produce(5, 2, false)
		s.drain(10)
		s.end()
		s.produce(5, 40, true)
		s.wantEnded("the client has cancelled between two events", codes.Canceled)
	})
	on(t, time.Minute, func(s *stage) {
		s.produce(5, 2, false)
		s.drain(10)
		time.Sleep(time.Hour)
		s.produce(5, 40, true)
		s.wantEnded("the deadline has passed between two events", codes.DeadlineExceeded)
	})
}

// waiting starts 5 producers who do not give up, and lets 3 events be sent.
func (s *stage) waiting() {
	s.Helper()
	s.produce(5, 40, true)
	for range 3 {
		s.step()
	}
	s.settle()
	if len(s.in) == 0 {
		s.Fatal("5 producers called Send, and the stream's Send was called 3 times")
	}
}

// wantEnded checks a fan-in whose stream has ended.
func (s *stage) wantEnded(what string, want ...codes.Code) {
	s.Helper()
	s.wantFree(what)
	if n := len(s.unsent()); n > kept {
		s.Fatalf("%s, and Send still returned nil for %d events that are not sent, want at most %d, and an error for each producer", what, n, kept)
	}
	for _, p := range s.producers {
		if p.stubborn && len(p.errs) == 0 {
			s.Fatalf("%s, and no Send of producer %s returned an error", what, p.name)
		}
		for _, err := range p.errs {
			if got := code(err); !slices.Contains(want, got) {
				s.Fatalf("%s, and a Send of producer %s returned code %v (%v), want %v", what, p.name, got, err, want)
			}
		}
	}
	s.close()
	s.wantClosed("although " + what)
}

func code(err error) codes.Code {
	switch {
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return status.Code(err)
}

// feed is a server with real streams, whose producers leave when Send fails.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	fill, producers, n int
	every              time.Duration
	called             atomic.Int32 // producers that have called Send
	returned           chan struct{}
}

func (s *feed) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	defer close(s.returned)
	f := newFanIn(stream)
	defer f.Close()
	for range s.fill {
		if err := f.Send(&feedv1.Event{Body: strings.Repeat("x", 1024)}); err != nil {
			return err
		}
	}
	var all sync.WaitGroup
	for p := range s.producers {
		all.Go(func() {
			for range s.n {
				time.Sleep(s.every + time.Duration(p)*s.every/10)
				s.called.Add(1)
				if err := f.Send(&feedv1.Event{Body: "!"}); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return nil
}

// read opens a stream and returns what reads it, to its end.
func (s *feed) read(ctx context.Context, l *lab.Lab, link *lab.Link) (recv func() error) {
	l.Helper()
	stream, err := feedv1.NewFeedServiceClient(link.Dial()).Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		l.Fatal(err)
	}
	return func() error {
		_, err := stream.Recv()
		return err
	}
}

func TestTheHandlerEndsWithItsClient(t *testing.T) {
	const after, soon = 2300 * time.Millisecond, 10 * time.Second
	for _, what := range []string{"the client cancelled", "the deadline passed", "the connection broke", "the server was stopped"} {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			if what == "the deadline passed" {
				ctx, cancel = context.WithTimeout(ctx, after)
				defer cancel()
			}
			s := &feed{producers: 3, n: 1000, every: 100 * time.Millisecond, returned: make(chan struct{})}
			link := l.NewLink()
			srv := link.Serve(s)
			recv := s.read(ctx, l, link)
			go func() {
				for recv() == nil {
				}
			}()
			time.Sleep(after)
			switch what {
			case "the client cancelled":
				cancel()
			case "the connection broke":
				link.Cut()
			case "the server was stopped":
				go srv.Stop()
			}
			select {
			case <-s.returned:
			case <-time.After(soon):
				l.Fatalf("%s, and %v later the handler still waits for its producers, who wait for an error of Send:\n%s", what, soon, l.Stuck())
			}
		})
	}
}

// The handler fills a real stream, and then each producer has a tiny event. The
// client begins to read when all of them have called Send.
func TestASlowClientGetsEverythingOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		s := &feed{fill: 128, producers: 5, n: 1, returned: make(chan struct{})}
		link := l.NewLink()
		link.Serve(s)
		recv := s.read(ctx, l, link)
		for s.called.Load() < 5 {
			time.Sleep(time.Millisecond)
		}
		l.Settle()
		var received atomic.Int32
		ended := make(chan error, 1)
		go func() {
			for err := recv(); ; err = recv() {
				if err != nil {
					ended <- err
					return
				}
				received.Add(1)
			}
		}()
		for quiet, last := 0, int32(-1); ; quiet++ {
			if now := received.Load(); now != last {
				quiet, last = 0, now
			}
			select {
			case err := <-ended:
				if received.Load() != 133 || !errors.Is(err, io.EOF) {
					l.Errorf("the client received %d events, and then %v, want 133 and the handler's end", received.Load(), err)
				}
				return
			case <-time.After(20 * time.Millisecond):
			}
			if l.Settle(); quiet == 25 { // nobody does anything any more
				l.Fatalf("the client has read all that came, %d events of 133, and nothing moves any more:\n%s", last, l.Stuck())
			}
		}
	})
}
