package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// What README.md allows.
const (
	soon       = time.Second      // after what there is to react to
	atLeast    = 25 * time.Second // within which a call may not be given up
	atMost     = time.Minute      // and within which it must be
	pauses     = 5 * time.Second  // between the end of a call and the next one
	reconnects = 10 * time.Second // after the network is there again
)

var (
	green  = &feedv1.Event{Id: "7", Topic: "build", Body: "green"}
	onlyID = &feedv1.Event{Id: "7"}
	never  = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC) // the lab has 2000
	errBad = status.Error(codes.Unavailable, "the server restarts")
)

// waits serves w on a link, whose server has FeedService alone.
func waits(w waiter) grpc.ServerOption {
	return grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		if name, _ := grpc.MethodFromServerStream(stream); name != "/feed.v1.Jobs/Wait" {
			return status.Error(codes.Unimplemented, name)
		}
		reply, err := waiting.Methods[0].Handler(w, stream.Context(), func(req any) error {
			if err := stream.RecvMsg(req); err != nil {
				return err
			}
			stream.RecvMsg(new(feedv1.Event)) // the half-close
			return nil
		}, nil)
		if err != nil {
			return err
		}
		return stream.SendMsg(reply)
	})
}

// on runs body in virtual time, of which it may take much. Of a test that has
// failed it runs no more.
func on(t *testing.T, body func(*lab.Lab)) {
	t.Helper()
	if !t.Failed() {
		lab.Run(t, body, lab.Lasts(10*time.Hour))
	}
}

// A script is a server of which Wait is a function, and what its check knows of
// the calls.
type script struct {
	feedv1.UnimplementedFeedServiceServer
	l              *lab.Lab
	link           *lab.Link
	conn           *grpc.ClientConn
	answer         func(ctx context.Context, n int) (*feedv1.Event, error) // call n, from 1
	calls, running atomic.Int32                                            // at the server
	down           time.Time                                               // until then each call fails
	several        bool                                                    // callers at a time
	once           sync.Once
	broken         chan struct{} // closed when wait has broken a rule

	what       string       // happens
	made, open atomic.Int32 // calls of this wait, and those under way

	mu           sync.Mutex
	began, ended time.Time // the last one
	final        string    // what it brought, if that is to be returned
}

func newScript(l *lab.Lab, answer func(ctx context.Context, n int) (*feedv1.Event, error)) *script {
	s := &script{l: l, answer: answer, link: l.NewLink(), broken: make(chan struct{})}
	s.link.Serve(s, waits(s))
	s.conn = s.link.Dial(grpc.WithChainUnaryInterceptor(s.asked), grpc.WithConnectParams(grpc.ConnectParams{
		Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1, MaxDelay: time.Second}, MinConnectTimeout: 5 * time.Second}))
	return s
}

// fail says that a rule is broken, once, and ends the test.
func (s *script) fail(format string, args ...any) {
	s.once.Do(func() {
		s.l.Errorf("%s: %s", s.what, fmt.Sprintf(format, args...))
		close(s.broken)
	})
}

// asked is where a call begins and ends.
func (s *script) asked(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if s.open.Load() > 0 {
		s.l.Settle() // one that ends at this instant may end first
	}
	s.mu.Lock()
	n, gap, idle := s.made.Add(1), time.Since(s.began), time.Since(s.ended)
	switch {
	case n == 1 || s.several:
	case s.final != "":
		s.fail("call %d %s returned, and wait called again", n-1, s.final)
	case s.open.Load() > 0:
		s.fail("call %d of Wait began while another was under way, want one at a time", n)
	case gap < time.Second-time.Millisecond:
		s.fail("calls %d and %d of Wait began %v apart, want 1s at least", n-1, n, gap.Round(time.Millisecond))
	case idle > pauses+time.Millisecond:
		s.fail("call %d of Wait began %v after the end of the one before, want %v at most", n, idle.Round(time.Millisecond), pauses)
	}
	s.open.Add(1)
	s.began = time.Now()
	s.mu.Unlock()
	if s.l.Failed() {
		s.l.FailNow() // or it asks on, and time stands still
	}
	err := errBad
	if !time.Now().Before(s.down) {
		err = invoke(ctx, method, req, reply, conn, opts...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open.Add(-1)
	s.ended, s.final = time.Now(), ""
	switch code := status.Code(err); {
	case err == nil && reply.(*feedv1.Event).GetId() != "":
		s.final = "answered with the result, " + text(reply.(*feedv1.Event)) + ", want it"
	case err != nil && ctx.Err() == nil && code != codes.Unavailable && code != codes.DeadlineExceeded:
		s.final = fmt.Sprintf("failed with %v, want that code", code)
	}
	return err
}

func (s *script) Watch(*feedv1.WatchRequest, grpc.ServerStreamingServer[feedv1.Event]) error {
	s.fail("wait opened a stream: Watch was called, want only calls of Wait")
	return status.Error(codes.Unimplemented, "Watch")
}

func (s *script) Wait(ctx context.Context, _ *feedv1.WatchRequest) (*feedv1.Event, error) {
	s.running.Add(1)
	defer s.running.Add(-1)
	return s.answer(ctx, int(s.calls.Add(1)))
}

// held answers as the server does: nothing yet after hold, and the result of a
// job that ends at a time.
func held(end time.Time, result *feedv1.Event) func(context.Context, int) (*feedv1.Event, error) {
	return func(ctx context.Context, _ int) (*feedv1.Event, error) {
		left := time.Until(end)
		if err := sleep(ctx, min(left, hold)); err != nil {
			return nil, err
		}
		if left > hold {
			return new(feedv1.Event), nil
		}
		return result, nil
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// wait calls wait, which has limit to return, and says how long after the end
// of its last call it did.
func (s *script) wait(ctx context.Context, what string, limit time.Duration) (ev *feedv1.Event, late time.Duration, err error) {
	s.l.Helper()
	s.what = what
	s.made.Store(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.l.Call("wait", limit, func() { ev, err = wait(ctx, s.conn, "build") })
	}()
	select {
	case <-done:
	case <-s.broken:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.l.Failed() {
		s.l.FailNow()
	} else if s.made.Load() == 0 && ctx.Err() == nil {
		s.l.Fatalf("%s: wait made no call and returned %s and %s: is something kept in a package variable?", what, text(ev), says(err))
	}
	return ev, time.Since(s.ended), err
}

// want wants the result, soon after the answer and not later than late after at.
func (s *script) want(what string, result *feedv1.Event, at time.Time, late time.Duration) {
	s.l.Helper()
	ev, took, err := s.wait(s.l.Context(), what, time.Until(at)+20*time.Minute)
	all := time.Since(at)
	switch {
	case err != nil:
		s.l.Fatalf("%s: wait returned %s after %d calls, want the result", what, says(err), s.made.Load())
	case ev.GetId() == "":
		s.l.Fatalf("%s: wait returned %s after %d calls, which says that the job runs: want its result", what, text(ev), s.made.Load())
	case text(ev) != text(result):
		s.l.Fatalf("%s: wait returned %s, want %s", what, text(ev), text(result))
	case took > soon:
		s.l.Fatalf("%s: wait returned the result %v after the answer, want %v at most", what, took.Round(time.Millisecond), soon)
	case all > late:
		s.l.Fatalf("%s: wait returned the result late by %v, want %v at most", what, all.Round(time.Millisecond), late)
	}
}

// says is an error with its code. A context's own error counts as its code.
func says(err error) string {
	return fmt.Sprintf("code %v (%s)", codeOf(err), status.Convert(err).Message())
}

func codeOf(err error) codes.Code {
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

func text(ev *feedv1.Event) string {
	if ev == nil {
		return "no event"
	} else if s := lab.Text(ev); s != lab.Text(new(feedv1.Event)) {
		return s
	}
	return "an empty event"
}

func TestWaitOpensNoStream(t *testing.T) {
	for i, takes := range []time.Duration{0, 7300 * time.Millisecond, 19900 * time.Millisecond, 47 * time.Second, 5*time.Hour + 300*time.Millisecond} {
		on(t, func(l *lab.Lab) {
			end, result := time.Now().Add(takes), []*feedv1.Event{green, onlyID}[i%2]
			s, what := newScript(l, held(end, result)), fmt.Sprintf("the job took %v", takes)
			s.want(what, result, end, pauses+soon)
			s.want(what+" and has ended", result, time.Now(), soon) // again
		})
	}
}

func TestACallIsGivenUpInTime(t *testing.T) {
	on(t, func(l *lab.Lab) {
		end := time.Now().Add(3 * time.Minute)
		s := newScript(l, nil)
		s.answer = func(ctx context.Context, n int) (*feedv1.Event, error) {
			if n != 2 && n != 3 {
				return held(end, green)(ctx, n)
			}
			from := time.Now() // this one is never answered
			err := sleep(ctx, 10*time.Minute)
			if took := time.Since(from).Round(time.Millisecond); err == nil {
				s.fail("10m later a call was still open, want it to be given up after %v to %v", atLeast, atMost)
			} else if took < atLeast {
				s.fail("a call was given up after %v, want %v to %v: the server may hold it for %v", took, atLeast, atMost, hold)
			} else if took > atMost+soon {
				s.fail("a call was given up after %v, want %v to %v", took, atLeast, atMost)
			}
			return nil, err
		}
		s.want("two calls were not answered", green, end, pauses+soon)
	})
}

// Where the answers come at once, somebody has to slow down.
func TestWaitDoesNotAskAllTheTime(t *testing.T) {
	for i, what := range []string{"calls are answered at once by an empty event", "calls fail at once with Unavailable"} {
		on(t, func(l *lab.Lab) {
			time.Sleep(300 * time.Millisecond) // off the full seconds
			end := time.Now().Add(time.Minute)
			s := newScript(l, func(ctx context.Context, n int) (*feedv1.Event, error) {
				if n == 5 { // a long one, in which a ticker ticks
					sleep(ctx, 18500*time.Millisecond)
				}
				if time.Now().After(end) {
					return green, nil
				}
				return new(feedv1.Event), []error{nil, errBad}[i]
			})
			s.want(what, green, end, pauses+soon)
		})
	}
}

func TestALostAnswerIsAskedForAgain(t *testing.T) {
	for _, cut := range []time.Duration{33 * time.Second, 60*time.Second + lab.Latency/2} {
		on(t, func(l *lab.Lab) {
			start := time.Now()
			s := newScript(l, held(start.Add(time.Minute), green))
			time.AfterFunc(cut, s.link.Cut)
			time.AfterFunc(cut+45*time.Second, s.link.Heal)
			what := fmt.Sprintf("the job ended after 1m, the network was cut after %v for 45s", cut.Round(time.Millisecond))
			s.want(what, green, start.Add(cut+45*time.Second), reconnects)
		})
	}
	on(t, func(l *lab.Lab) {
		s := newScript(l, held(time.Now(), green))
		s.down = time.Now().Add(2 * time.Hour)
		s.want("calls failed with Unavailable for 2h", green, s.down, pauses+soon)
	})
}

func TestOtherErrorsOfTheServerAreReturned(t *testing.T) {
	for _, code := range []codes.Code{codes.NotFound, codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Internal, codes.Unimplemented, codes.FailedPrecondition, codes.ResourceExhausted, codes.Unknown} {
		for _, at := range []int{1, 3} {
			on(t, func(l *lab.Lab) {
				s := newScript(l, func(ctx context.Context, n int) (*feedv1.Event, error) {
					if n < at {
						return held(never, green)(ctx, n)
					}
					return nil, status.Error(code, "said the server")
				})
				what := fmt.Sprintf("call %d of Wait failed with %v", at, code)
				ev, late, err := s.wait(l.Context(), what, 10*time.Minute)
				if codeOf(err) != code || ev != nil {
					l.Fatalf("%s: wait returned %s and %s, want that code and no event", what, text(ev), says(err))
				} else if late > soon {
					l.Fatalf("%s: wait returned %v later, want %v at most", what, late, soon)
				}
			})
		}
	}
}

func TestTheCallerEndsWait(t *testing.T) {
	holds := held(never, green)
	for _, tt := range []struct {
		what   string
		answer func(context.Context, int) (*feedv1.Event, error)
		after  time.Duration
	}{
		{"the server held a call", holds, 5 * time.Second},
		{"the server held the second call", holds, 27 * time.Second},
		{"calls failed with Unavailable", func(context.Context, int) (*feedv1.Event, error) { return nil, errBad }, 4370 * time.Millisecond},
		{"the caller had ended before", holds, 0},
	} {
		for _, want := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
			on(t, func(l *lab.Lab) {
				s := newScript(l, tt.answer)
				timeout := map[codes.Code]time.Duration{codes.Canceled: time.Hour, codes.DeadlineExceeded: tt.after}[want]
				ctx, cancel := context.WithTimeout(l.Context(), timeout)
				defer cancel()
				if time.AfterFunc(tt.after+time.Nanosecond, cancel); tt.after == 0 {
					cancel()
				}
				end := time.Now().Add(tt.after)
				what := fmt.Sprintf("%s, the caller's context ended after %v (%v)", tt.what, tt.after, want)
				ev, _, err := s.wait(ctx, what, 10*time.Minute)
				if late := time.Since(end); codeOf(err) != want || ev != nil {
					l.Fatalf("%s: wait returned %s and %s, want code %v and no event", what, text(ev), says(err), want)
				} else if late > soon {
					l.Fatalf("%s: wait returned late by %v, want %v at most", what, late.Round(time.Millisecond), soon)
				}
				l.Settle()
				calls := s.made.Load()
				if time.Sleep(soon); s.running.Load() > 0 {
					l.Fatalf("%s: wait has returned, and its call goes on at the server: want it to end with the caller", what)
				}
				if time.Sleep(10 * time.Second); s.made.Load() != calls {
					l.Fatalf("%s: wait has returned, and a call of Wait began after that", what)
				}
			})
		}
	}
}

func TestTwoWaitsDoNotDisturbEachOther(t *testing.T) {
	on(t, func(l *lab.Lab) {
		end := time.Now().Add(time.Minute)
		s := newScript(l, held(end, green))
		s.several = true
		ctx, cancel := context.WithCancel(l.Context())
		time.AfterFunc(30*time.Second, cancel)
		gone := make(chan error, 1)
		go func() {
			_, err := wait(ctx, s.conn, "build")
			gone <- err
		}()
		time.Sleep(time.Second)
		s.want("two callers waited, and one of them left", green, end, pauses+soon)
		if err := <-gone; codeOf(err) != codes.Canceled {
			l.Fatalf("two callers waited, and one of them left: its wait returned %s, want Canceled", says(err))
		}
	})
}

// A board is the jobs of a server. The job is "build".
type board struct {
	l    *lab.Lab
	conn *grpc.ClientConn
	link *lab.Link

	result     *feedv1.Event
	endsAt     string       // the method in which the job ends, if it does in one
	asked      atomic.Int32 // how often Result was called
	mu         sync.Mutex
	ended      bool
	subs       map[*subscription]chan struct{}
	all, calls int
}

// kept is set when an answer keeps a subscription from call to call. In the next
// bubble it would end the process.
var kept string

func newBoard(l *lab.Lab) *board {
	if kept != "" {
		l.Fatal(kept)
	}
	b := &board{l: l, subs: map[*subscription]chan struct{}{}, link: l.NewLink(), result: &feedv1.Event{Id: "7", Body: "green"}}
	s := &server{jobs: b}
	b.link.Serve(s, waits(s))
	b.conn = b.link.Dial()
	return b
}

func (b *board) Result(job string) (*feedv1.Event, error) {
	b.asked.Add(1)
	b.mu.Lock()
	ended := b.ended
	b.mu.Unlock()
	if b.endsAt == "Result" {
		b.end()
	}
	if job != "build" {
		return nil, errNoJob
	} else if ended {
		return b.result, nil
	}
	return nil, nil
}

func (b *board) Subscribe(string) *subscription {
	if b.endsAt == "Subscribe" {
		b.end()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := make(chan struct{})
	sub := &subscription{C: c}
	sub.Close = func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subs, sub)
	}
	b.subs[sub] = c
	b.all++
	return sub
}

// end ends the job.
func (b *board) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.subs {
		if !b.ended {
			close(c)
		}
	}
	b.ended = true
}

// call calls the server's Wait as a client does.
func (b *board) call(ctx context.Context, job string) (ev *feedv1.Event, err error) {
	b.l.Helper()
	b.calls++
	b.l.Call("Wait", 5*time.Minute, func() { ev, err = callWait(ctx, b.conn, &feedv1.WatchRequest{Topic: job}) })
	return ev, err
}

// want wants a call to be answered at a time, with the result or with nothing yet.
func (b *board) want(what string, result *feedv1.Event, from, to time.Time) {
	b.l.Helper()
	before := text(b.result)
	ev, err := b.call(b.l.Context(), "build")
	switch now := time.Now(); {
	case err != nil:
		b.l.Fatalf("%s: Wait returned %s", what, says(err))
	case text(b.result) != before:
		b.l.Fatalf("%s: Wait changed the result, which others get, too: it was %s and is %s", what, before, text(b.result))
	case text(ev) != text(result):
		b.l.Fatalf("%s: Wait answered after %v with %s, want %s", what, b.l.Elapsed().Round(time.Millisecond), text(ev), text(result))
	case now.Before(from):
		b.l.Fatalf("%s: Wait answered %v too early", what, from.Sub(now).Round(time.Millisecond))
	case now.After(to.Add(2 * lab.Latency)): // the way
		b.l.Fatalf("%s: Wait answered late by %v, want %v at most", what, now.Sub(to).Round(time.Millisecond)+soon, soon)
	}
}

// wantNone wants no subscription to be left a second later.
func (b *board) wantNone(what string) {
	b.l.Helper()
	time.Sleep(soon)
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := len(b.subs); n > 0 {
		b.l.Fatalf("%s, and a second later %d of %d subscriptions are not closed, want none", what, n, b.all)
	}
}

func TestTheServerAnswersAfterHold(t *testing.T) {
	on(t, func(l *lab.Lab) {
		b := newBoard(l)
		for range 3 {
			start := time.Now()
			b.want("the job runs", new(feedv1.Event), start.Add(hold-soon), start.Add(hold+soon))
		}
		b.mu.Lock()
		open, all := len(b.subs), b.all
		b.mu.Unlock()
		if open > 0 && all < b.calls {
			kept = fmt.Sprintf("the job runs, and %d calls of Wait made %d subscriptions and closed %d: something is kept in a package variable from call to call", b.calls, all, all-open)
			l.Fatal(kept)
		}
		b.wantNone("the job runs, Wait has answered")
		if n := b.asked.Load(); n > 3*22 {
			l.Fatalf("the server asked for the result %d times in a minute, want once a second at most", n)
		}
	})
}

func TestTheServerAnswersWhenTheJobEnds(t *testing.T) {
	for _, takes := range []time.Duration{0, 6400 * time.Millisecond, 19300 * time.Millisecond} {
		on(t, func(l *lab.Lab) {
			b := newBoard(l)
			end, what := time.Now().Add(takes), fmt.Sprintf("the job ended after %v", takes)
			if time.AfterFunc(takes, b.end); takes == 0 {
				b.end() // before anybody asks
			}
			b.want(what, b.result, end, end.Add(soon))
			for range 3 {
				b.want(what+" and Wait is called again", b.result, end, time.Now().Add(soon))
			}
			b.wantNone(what)
		})
	}
	on(t, func(l *lab.Lab) { // and all of them
		b := newBoard(l)
		time.AfterFunc(5*time.Second, b.end)
		answered := make(chan string, 20)
		for range cap(answered) {
			go func() {
				ev, err := callWait(l.Context(), b.conn, &feedv1.WatchRequest{Topic: "build"})
				answered <- text(ev) + " and " + says(err)
			}()
		}
		time.Sleep(5*time.Second + soon)
		if n := len(answered); n != cap(answered) {
			l.Fatalf("%d clients wait, the job ended, and a second later %d have an answer", cap(answered), n)
		}
		for range cap(answered) {
			if got := <-answered; got != text(b.result)+" and "+says(nil) {
				l.Fatalf("one of %d clients got %s", cap(answered), got)
			}
		}
		b.wantNone("the job has ended")
	})
}

func TestTheServerMissesNoEnd(t *testing.T) {
	for i, what := range []string{"the job ended after Result had said that it runs", "the job ended when Subscribe was called"} {
		on(t, func(l *lab.Lab) {
			b := newBoard(l)
			b.endsAt = []string{"Result", "Subscribe"}[i]
			time.AfterFunc(3*time.Second, b.end) // if nobody subscribes
			b.want(what, b.result, time.Now(), time.Now().Add(3*time.Second+soon))
		})
	}
}

func TestAJobThatNobodyStartedIsNotFound(t *testing.T) {
	on(t, func(l *lab.Lab) {
		b, start := newBoard(l), time.Now()
		if ev, err := b.call(l.Context(), "bulid"); codeOf(err) != codes.NotFound || time.Since(start) > soon {
			l.Fatalf("nobody has started the job, and Wait returned %s and %s after %v, want NotFound at once", text(ev), says(err), time.Since(start))
		}
		b.wantNone("nobody has started the job, Wait has answered")
	})
}

func TestTheServerEndsWithItsCaller(t *testing.T) {
	for i, what := range []string{"the caller cancelled", "the caller's deadline passed", "the network was cut"} {
		on(t, func(l *lab.Lab) {
			b := newBoard(l)
			ctx, cancel := context.WithTimeout(l.Context(), []time.Duration{time.Hour, 5 * time.Second, time.Hour}[i])
			time.AfterFunc(5*time.Second, []func(){cancel, func() {}, b.link.Cut}[i])
			what += " while the server waited"
			_, err := b.call(ctx, "build")
			cancel()
			if code := codeOf(err); code != codes.Canceled && code != codes.DeadlineExceeded && code != codes.Unavailable {
				l.Fatalf("%s, and the call returned %s", what, says(err))
			}
			b.wantNone(what)
			asked := b.asked.Load()
			if leaks := l.Leaks(); len(leaks) > 0 {
				l.Fatalf("%s, and a second later: %s", what, leaks[0])
			}
			if time.Sleep(time.Minute); b.asked.Load() != asked {
				l.Fatalf("%s, and a minute later it still asks for the result", what)
			}
		})
	}
}

// Both sides, and a job of an hour.
func TestBothSidesTogether(t *testing.T) {
	on(t, func(l *lab.Lab) {
		b := newBoard(l)
		time.AfterFunc(time.Hour, b.end)
		var ev *feedv1.Event
		var err error
		l.Call("wait", 2*time.Hour, func() { ev, err = wait(l.Context(), b.conn, "build") })
		if late := l.Elapsed() - time.Hour; err != nil || text(ev) != text(b.result) || late > pauses+2*soon {
			l.Fatalf("the job ended after an hour: wait returned %s and %s, late by %v", text(ev), says(err), late)
		}
	})
}
