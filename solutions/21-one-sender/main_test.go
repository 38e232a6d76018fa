package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"runtime/debug"
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

const (
	kept = 16 // accepted events that may wait for the stream (README.md)
	day  = 24 * time.Hour
)

// A gated is the server's end of a stream on which each Send waits until the
// test lets it go on, or the stream ends.
type gated struct {
	grpc.ServerStream // what else is called panics
	ctx               context.Context
	end               context.CancelFunc
	lives             bool          // the context outlives a Send that fails
	until             chan struct{} // set: a Send outlives the context

	looks atomic.Int32 // at the so-manyth call of Context …
	look  func()       // … this is done first

	mu     sync.Mutex
	in     []*sending // Sends that have not returned, oldest first
	sent   []string   // the events whose Send has returned nil
	failed bool       // a Send has returned an error
	closed bool       // Close of the fan-in has returned
	foul   string     // what may never be
}

// A sending is one call of the stream's Send.
type sending struct {
	id, at string
	goOn   chan error
}

func (g *gated) Context() context.Context {
	if g.looks.Add(-1) == 0 {
		g.look()
	}
	return g.ctx
}

func (g *gated) SendMsg(m any) error { return g.Send(m.(*feedv1.Event)) }

func (g *gated) Send(ev *feedv1.Event) (err error) {
	s := &sending{ev.GetId(), caller(), make(chan error, 1)}
	g.mu.Lock()
	g.in = append(g.in, s)
	switch {
	case g.closed:
		g.foul = fmt.Sprintf("the stream's Send was called after Close had returned (%s)", s.at)
	case g.failed:
		g.foul = fmt.Sprintf("the stream's Send was called again after it had failed (%s): its first error is final", s.at)
	}
	g.mu.Unlock()
	done := g.ctx.Done()
	if g.until != nil {
		done = g.until
	}
	select {
	case err = <-s.goOn:
	case <-done:
		err = status.FromContextError(g.ctx.Err()).Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.in = slices.DeleteFunc(g.in, func(o *sending) bool { return o == s })
	if err == nil {
		g.sent = append(g.sent, s.id)
		return nil
	}
	if g.failed = true; !g.lives {
		g.end() // as a server's Send does that fails
	}
	return err
}

var line = regexp.MustCompile(`answer\.go:\d+`)

// caller is the line of answer.go that called.
func caller() string { return cmp.Or(line.FindString(string(debug.Stack())), "a goroutine of its own") }

// goroutines returns a dump. Stuck of the lab lets time pass, which a lock that
// somebody waits for does not allow.
func goroutines() []string {
	buf := make([]byte, 4<<20)
	return strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
}

// waitsAt is the line of answer.go at which a goroutine is in method.
func waitsAt(method string) string {
	for _, g := range goroutines() {
		at := line.FindString(g)
		switch {
		case at == "" || !strings.Contains(g, "(*fanIn)."+method+"("):
		case strings.Contains(g, " [sleep"):
			return at + ", and sleep there: wait for the stream's Send, do not poll"
		default:
			return at
		}
	}
	return "answer.go"
}

// A producer calls Send with numbered events, one after the other.
type producer struct {
	*stage
	name     string
	stubborn bool // goes on after an error

	// Guarded by the stream's mu.
	calls             int
	accepted, refused []string
	errs              []error
	inSend            bool
}

// send sends the next event.
func (p *producer) send() (err error) {
	p.mu.Lock()
	p.calls++
	p.inSend = true
	ev := &feedv1.Event{Id: fmt.Sprintf("%s/%d", p.name, p.calls), Topic: p.name}
	p.mu.Unlock()
	defer func() {
		r := recover()
		p.mu.Lock()
		defer p.mu.Unlock()
		switch p.inSend = false; {
		case r != nil:
			err = fmt.Errorf("panic: %v", r)
			p.foul = fmt.Sprintf("Send panicked: %v (%s); Close had %s", r, caller(), map[bool]string{true: "been called", false: "not been called"}[p.closing])
		case err == nil:
			p.accepted = append(p.accepted, ev.Id)
		default:
			p.refused, p.errs = append(p.refused, ev.Id), append(p.errs, err)
		}
	}()
	return p.f.Send(ev)
}

// A stage is a fan-in on a gated stream, and its producers. The test looks at
// it when all goroutines wait, and no time passes meanwhile.
type stage struct {
	*lab.Lab
	*gated
	f         *fanIn
	producers []*producer
	closing   bool
}

// on runs a test with n stages, and closes them.
func on(t *testing.T, n int, test func(s *stage, all []*stage)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		all := make([]*stage, n)
		for i := range all {
			g := new(gated)
			g.ctx, g.end = context.WithTimeout(l.Context(), 3*day)
			defer g.end() // whoever waits for the stream is free
			all[i] = &stage{Lab: l, gated: g, f: newFanIn(g)}
		}
		l.Settle()
		test(all[0], all)
		wantClosed(all)
	}, lab.Lasts(7*day))
}

// produce starts producers of n events each, and does what is then to be done.
func (s *stage) produce(producers, n int, stubborn bool, then ...func()) {
	for range producers {
		p := &producer{stage: s, name: fmt.Sprint(len(s.producers) + 1), stubborn: stubborn}
		s.producers = append(s.producers, p)
		go func() {
			for range n {
				if p.send() != nil && !stubborn {
					break
				}
			}
			for _, f := range then {
				f()
			}
		}()
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
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.f.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if len(s.in) > 0 {
		s.foul = fmt.Sprintf("Close returned while the stream's Send was at work (%s): a handler that returns now ends the stream under it", s.in[0].at)
	}
}

// settle waits until all goroutines wait, and looks for what may never be.
func settle(all ...*stage) {
	all[0].Helper()
	all[0].Settle()
	for _, s := range all {
		s.check()
	}
}

func (s *stage) check() {
	s.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	unsent := s.unsent()
	switch {
	case len(s.in) > 1:
		s.Fatalf("%d goroutines are in the stream's Send at the same time, at %s and %s: want one at a time", len(s.in), s.in[0].at, s.in[1].at)
	case s.foul != "":
		s.Fatal(s.foul)
	case s.closed && len(unsent) > 0 && !s.failed && s.ctx.Err() == nil:
		s.Fatalf("Close has returned, and %d events for which Send returned nil were not sent, such as %s (1/1 is the first of producer 1)", len(unsent), unsent[0])
	}
	last := map[string]int{}
	for i, id := range s.sent {
		name, number, _ := strings.Cut(id, "/")
		n, _ := strconv.Atoi(number)
		switch {
		case slices.Contains(s.sent[:i], id):
			s.Fatalf("event %s was sent twice (4/2 is the second event of producer 4)", id)
		case n < last[name]:
			s.Fatalf("event %s/%d was sent before %s: the order of a producer's events is lost (4/2 is the second event of producer 4)", name, last[name], id)
		case slices.ContainsFunc(s.producers, func(p *producer) bool { return slices.Contains(p.refused, id) }):
			s.Fatalf("Send returned an error for event %s, which was sent all the same", id)
		}
		last[name] = n
	}
}

// step lets the Sends that wait go on, and reports whether there was one.
func step(all ...*stage) (was bool) {
	all[0].Helper()
	settle(all...)
	for _, s := range all {
		if len(s.in) > 0 {
			s.in[0].goOn <- nil
			was = true
		}
	}
	return was
}

// drain lets everything be sent.
func drain(all ...*stage) {
	all[0].Helper()
	for step(all...) {
	}
}

// pass lets a day pass. Who waits for a lock keeps the bubble's time from
// passing, and has no time limit; who sleeps polls, which other tests see.
func (s *stage) pass() {
	s.Helper()
	settle(s)
	for _, g := range goroutines() {
		head, _, _ := strings.Cut(g, "\n")
		if strings.Contains(head, "synctest bubble") && !strings.Contains(head, "[running") &&
			(!strings.Contains(head, "(durable)") || strings.Contains(head, "[sleep")) {
			return
		}
	}
	time.Sleep(day)
	settle(s)
}

// wantFree checks that no producer is in Send.
func (s *stage) wantFree(after string) {
	s.Helper()
	settle(s)
	stuck := 0
	for _, p := range s.producers {
		if p.inSend {
			stuck++
		}
	}
	if stuck > 0 {
		s.Fatalf("%s, and %d of %d producers are still in Send, at %s", after, stuck, len(s.producers), waitsAt("Send"))
	}
}

// wantClosed calls Close, if nobody has, and checks what it promised.
func wantClosed(all []*stage) {
	all[0].Helper()
	settle(all...)
	for _, s := range all {
		if !s.closing {
			go s.close()
		}
	}
	drain(all...)
	for _, s := range all {
		if !s.closed {
			s.Fatalf("Close has not returned although the stream takes every event, or has ended: it waits at %s", waitsAt("Close"))
		}
		s.wantFree("Close had returned")
		s.produce(1, 40, true)
	}
	all[0].Settle()
	for _, s := range all {
		p := s.producers[len(s.producers)-1]
		if len(p.accepted) > 0 {
			s.Fatalf("after Close had returned, Send returned nil for %d of %d events, which nobody sends any more", len(p.accepted), p.calls)
		}
		if s.check(); p.inSend {
			s.Fatalf("a Send that was called after Close does not return: it waits at %s", waitsAt("Send"))
		}
	}
}

// wantAll checks that the stream has taken everything.
func (s *stage) wantAll() {
	s.Helper()
	s.wantFree("the stream has taken all that came")
	for _, p := range s.producers {
		if len(p.refused) > 0 {
			s.Fatalf("the stream took each event in the end, and Send returned an error for %s: %v", p.refused[0], p.errs[0])
		}
	}
}

func TestOneSendAtATime(t *testing.T) {
	on(t, 8, func(_ *stage, all []*stage) {
		for _, s := range all {
			s.produce(6, 4, false)
		}
		drain(all...)
		for _, s := range all {
			s.wantAll()
		}
	})
}

func TestAnHourOfSilenceChangesNothing(t *testing.T) {
	on(t, 1, func(s *stage, _ []*stage) {
		for range 3 {
			s.produce(3, 4, false)
			drain(s)
			s.wantFree("the stream has taken all that came, an hour after the events before")
			time.Sleep(time.Hour)
		}
		s.wantAll()
	})
}

func TestProducersWaitWhileTheClientDoesNotRead(t *testing.T) {
	for _, producers := range []int{1, 25} {
		on(t, 1, func(s *stage, _ []*stage) {
			s.produce(producers, 25/producers, false)
			settle(s)
			if n := len(s.unsent()); n > kept {
				s.Fatalf("there were 25 events, and the stream's Send waited for the client: your Send returned nil for %d, which it keeps or has dropped, want at most %d; the one at work counts", n, kept)
			}
			s.pass()
			for _, p := range s.producers {
				if len(p.refused) > 0 {
					why := "a Send that waits has no time limit of its own"
					if i := slices.IndexFunc(s.in, func(o *sending) bool { return o.id == p.refused[0] }); i >= 0 {
						why = fmt.Sprintf("the stream's Send is still at work with it (%s)", s.in[i].at)
					}
					s.Fatalf("the client has not read for a day, and Send returned an error for %s (%v): %s", p.refused[0], p.errs[0], why)
				}
			}
			drain(s)
			s.wantAll()
		})
	}
}

func TestAClientThatDoesNotReadHoldsUpNoOther(t *testing.T) {
	on(t, 2, func(_ *stage, all []*stage) {
		for _, s := range all {
			s.produce(2, 1, false)
			settle(s)
		}
		s := all[1]
		drain(s)
		s.wantFree("one client does not read, another takes all that comes")
	})
}

// What a goroutine does right after a Send comes before a lock has woken who
// waits for it: here the next event of another producer, if one was accepted.
func TestEventsOfAProducerKeepTheirOrder(t *testing.T) {
	on(t, 20, func(_ *stage, all []*stage) {
		accepted := make([]atomic.Bool, len(all))
		for i, s := range all {
			other := &producer{stage: s, name: "2"}
			s.produce(1, 1, false, func() {
				if accepted[i].Load() {
					other.send()
				}
			})
			s.producers = append(s.producers, other)
		}
		settle(all...)
		for _, s := range all {
			go s.producers[1].send()
		}
		settle(all...)
		for i, s := range all {
			accepted[i].Store(len(s.producers[1].accepted) > 0)
		}
		drain(all...)
	})
}

// Close is called when so many Sends have returned, while others wait.
func TestCloseSendsWhatWasAccepted(t *testing.T) {
	for _, tt := range []struct{ producers, steps int }{{12, 0}, {12, 5}, {1, 1}, {0, 0}} {
		on(t, 1, func(s *stage, _ []*stage) {
			s.produce(tt.producers, 20, false)
			for range tt.steps {
				step(s)
			}
			settle(s)
			go s.close()
		})
	}
	on(t, 48, func(_ *stage, all []*stage) { // Close comes when Send asks for the context
		resume := make(chan struct{})
		for i, s := range all {
			s.look = func() { <-resume }
			s.looks.Store(1 + int32(i%2))
			s.produce(1, 1, false)
		}
		settle(all...)
		for _, s := range all {
			go s.close()
		}
		settle(all...)
		close(resume)
	})
}

func TestEveryProducerLearnsOfTheEnd(t *testing.T) {
	for _, lives := range []bool{true, false} {
		on(t, 1, func(s *stage, _ []*stage) {
			s.lives = lives
			s.waiting()
			s.in[0].goOn <- status.Error(codes.ResourceExhausted, "the event is too large")
			if lives {
				s.wantEnded("the stream's Send has failed with ResourceExhausted while its context lives", codes.ResourceExhausted)
			} else {
				s.wantEnded("the stream's Send has failed with ResourceExhausted", codes.ResourceExhausted, codes.Canceled)
			}
		})
	}
	on(t, 1, func(s *stage, _ []*stage) {
		s.waiting()
		s.end()
		s.wantEnded("the client has cancelled while the stream's Send waited", codes.Canceled)
	})
	for _, want := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
		on(t, 1, func(s *stage, _ []*stage) {
			s.produce(5, 2, false)
			if drain(s); want == codes.Canceled {
				s.end()
			} else {
				time.Sleep(4 * day)
			}
			s.produce(5, 40, true)
			s.wantEnded(fmt.Sprintf("the stream's context has ended with %v between two events", want), want)
		})
	}
}

func TestNothingIsSentAfterClose(t *testing.T) {
	on(t, 20, func(_ *stage, all []*stage) { // Close comes before a lock has woken who waits for it
		for _, s := range all {
			s.produce(1, 1, false, s.close)
		}
		settle(all...)
		for _, s := range all {
			s.produce(1, 1, false)
		}
		drain(all...)
	})
	on(t, 1, func(s *stage, _ []*stage) {
		s.end()
		s.close()
	})
	on(t, 1, func(s *stage, _ []*stage) {
		s.until = make(chan struct{})
		defer close(s.until)
		s.waiting()
		s.end()
		go s.close()
		settle(s)
		s.in[0].goOn <- status.Error(codes.Canceled, "the client has cancelled")
	})
}

// waiting starts 5 producers who do not give up, and lets 3 events be sent.
func (s *stage) waiting() {
	s.Helper()
	s.produce(5, 40, true)
	for range 3 {
		step(s)
	}
	settle(s)
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
			got := status.Code(err)
			if got == codes.Unknown {
				got = status.FromContextError(err).Code()
			}
			if !slices.Contains(want, got) {
				s.Fatalf("%s, and a Send of producer %s returned code %v (%v), want %s", what, p.name, got, err, strings.ReplaceAll(strings.Trim(fmt.Sprint(want), "[]"), " ", " or "))
			}
		}
	}
}

// feed is a server with real streams, whose producers leave when Send fails.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	fill, n  int // events of 1 KiB before all others, and tiny ones of each producer
	pause    time.Duration
	called   atomic.Int32 // producers that have called Send
	returned chan struct{}
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
	for p := range 5 {
		all.Go(func() {
			for range s.n {
				time.Sleep(s.pause + time.Duration(p)*s.pause/10)
				s.called.Add(1)
				if f.Send(&feedv1.Event{Body: "!"}) != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return nil
}

func TestTheHandlerEndsWithItsClient(t *testing.T) {
	const after, soon = 2300 * time.Millisecond, 10 * time.Second
	for _, what := range []string{"the client cancelled", "the deadline passed", "the connection broke", "the server was stopped"} {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			limit := time.Hour
			if what == "the deadline passed" {
				limit = after
			}
			ctx, cancel := context.WithTimeout(l.Context(), limit)
			defer cancel()
			s := &feed{n: 1000, pause: 100 * time.Millisecond, returned: make(chan struct{})}
			link := l.NewLink()
			srv := link.Serve(s)
			stream, err := feedv1.NewFeedServiceClient(link.Dial()).Watch(ctx, new(feedv1.WatchRequest))
			go func() {
				for err == nil {
					_, err = stream.Recv()
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
		s := &feed{fill: 128, n: 1, returned: make(chan struct{})}
		client, _ := l.Connect(s)
		stream, err := client.Watch(ctx, new(feedv1.WatchRequest))
		if err != nil {
			l.Fatal(err)
		}
		for s.called.Load() < 5 {
			time.Sleep(time.Millisecond)
		}
		l.Settle()
		var received atomic.Int32
		ended := make(chan error, 1)
		go func() {
			_, err := stream.Recv()
			for ; err == nil; _, err = stream.Recv() {
				received.Add(1)
			}
			ended <- err
		}()
		last := int32(-1)
		for quiet := 0; quiet < 25; quiet++ { // until nobody does anything any more
			select {
			case err := <-ended:
				if received.Load() != 133 || !errors.Is(err, io.EOF) {
					l.Errorf("the client received %d events, and then %v, want 133 and the handler's end", received.Load(), err)
				}
				return
			case <-time.After(20 * time.Millisecond):
			}
			l.Settle()
			if now := received.Load(); now != last {
				quiet, last = 0, now
			}
		}
		l.Fatalf("the client has read all that came, %d events of 133, and nothing moves any more:\n%s", last, l.Stuck())
	})
}
