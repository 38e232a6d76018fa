package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const aDay = 24 * time.Hour

// A scripted stream is what the server does: so many events, a millisecond
// apart, silence for a while, and the end.
type scripted struct {
	header  bool
	events  int
	silence time.Duration
	end     error  // nil: the server returns, and the client's Recv says io.EOF
	steady  bool   // only the server ends it
	look    func() // what the check does while it is open
}

// refusals are n streams that end without an event.
func refusals(n int) []scripted {
	return slices.Repeat([]scripted{{end: status.Error(codes.Unavailable, "not now")}}, n)
}

// A testBench is a server, the link to it, and the calls of follow.
type testBench struct {
	*lab.Lab
	feedv1.UnimplementedFeedServiceServer
	link   *lab.Link
	srv    *grpc.Server
	client feedv1.FeedServiceClient

	mu       sync.Mutex
	calls    map[string]*followCall // by topic
	last     *followCall
	contexts []context.Context // one for each call of Watch
	once     sync.Once         // a flaw is told
}

// onBench runs body with a testBench. The channel waits for a second after a failed dial.
func onBench(t *testing.T, body func(*testBench), opts ...grpc.DialOption) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b := &testBench{Lab: l, link: l.NewLink(), calls: map[string]*followCall{}}
		b.serve()
		b.client = feedv1.NewFeedServiceClient(b.link.Dial(append(opts, grpc.WithStreamInterceptor(b.intercept), grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: time.Second, Multiplier: 1, MaxDelay: time.Second},
			MinConnectTimeout: time.Second,
		}))...))
		body(b)
	}, lab.Lasts(100*aDay))
}

func (b *testBench) serve() {
	b.srv = b.link.Serve(b, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}))
}

type followCall struct {
	*testBench
	topic   string
	what    string
	streams []scripted         // what the server does; after that it is silent, and the caller leaves
	stays   bool               // no, the caller stays
	final   bool               // no, the last stream is the last one
	plain   bool               // the events' ids are 1, none, 3 in each stream
	takes   time.Duration      // what handle takes
	fails   map[string]error   // what handle returns, by event
	ctx     context.Context    // what follow was called with
	cancel  context.CancelFunc // nil: its context has no end
	err     error

	mu      sync.Mutex
	served  int         // streams that the server has seen
	watches []watchCall // calls of Watch
	row     int         // the wait's number, since the last event that was handled
	waits   []time.Duration
	handled []string
	event   *feedv1.Event // handle's last
	running bool          // handle
	failed  bool          // handle
	quiet   time.Time     // when handle returned
	at      time.Time     // when follow returned
}

type watchCall struct {
	ended  time.Time
	events int
}

func (b *testBench) call(what string, streams ...scripted) *followCall {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &followCall{testBench: b, what: what, topic: "deploys", streams: streams}
	if b.last != nil && !b.last.at.IsZero() {
		c.what += ", and another call of follow had run before"
	}
	b.calls[c.topic], b.last = c, c
	return c
}

// leave calls follow with a context that ends when the server's script does.
func (c *followCall) leave(limit time.Duration) *followCall {
	c.Helper()
	ctx, cancel := context.WithCancel(c.Context())
	defer cancel()
	c.cancel = cancel
	return c.run(ctx, limit)
}

// run calls follow and fails the test if something was wrong with it.
func (c *followCall) run(ctx context.Context, limit time.Duration) *followCall {
	c.Helper()
	c.ctx = ctx
	name := c.what + ": follow"
	if c.cancel != nil {
		name = c.what + ", and at last the caller cancelled: follow"
	}
	c.Call(name, limit, func() {
		defer func() {
			if c.at.IsZero() && !c.Failed() {
				c.Errorf("%s: follow did not return from wait %d after %d attempts", c.what, c.row+1, len(c.watches))
			}
		}()
		c.err = follow(ctx, c.client, c.topic, c.handle)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.at = time.Now()
		c.wrong(c.running, "follow returned while handle ran, want it to wait")
	})
	c.check()
	return c
}

func (c *followCall) check() {
	c.Helper()
	if c.Failed() {
		c.FailNow()
	}
}

// wrong tells the first flaw, and ends the goroutine of an answer that has one:
// it may try for ever.
func (c *followCall) wrong(is bool, format string, args ...any) {
	if !is {
		return
	}
	c.once.Do(func() { c.Errorf("%s: %s", c.what, fmt.Sprintf(format, args...)) })
	if c.cancel != nil {
		c.cancel()
	}
	runtime.Goexit()
}

// wantOn checks that follow has gone on to the end of the script, and handled all.
func (c *followCall) wantOn() *followCall {
	c.Helper()
	switch n := c.served; {
	case n == 0:
		c.Fatalf("%s: follow returned %s and has opened no stream", c.what, errorText(c.err))
	case n <= len(c.streams):
		c.Fatalf("%s: stream %d ended with %v, and follow returned %s, want it to open another one", c.what, n, status.Code(c.streams[n-1].end), errorText(c.err))
	}
	return c.wantHandled()
}

func (c *followCall) wantHandled() *followCall {
	c.Helper()
	var want []string
	for n, s := range c.streams {
		for i := range s.events {
			want = append(want, fmt.Sprintf("%d.%d", n+1, i+1))
		}
	}
	if !slices.Equal(c.handled, want) {
		c.Fatalf("%s: handle was called for events %q, want %q", c.what, c.handled, want)
	}
	return c
}

func errorText(err error) string {
	if err == nil {
		return "nil"
	}
	return fmt.Sprintf("code %v (%v)", codeIn(err), err)
}

// codeIn returns the code of an error. A context's own error counts as its code.
func codeIn(err error) codes.Code {
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code()
}

// intercept sees each call of Watch.
func (b *testBench) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	streamer grpc.Streamer, opts ...grpc.CallOption) (s grpc.ClientStream, err error) {
	start := time.Now()
	b.mu.Lock()
	b.contexts = append(b.contexts, ctx)
	b.mu.Unlock()
	if s, err = streamer(ctx, desc, cc, method, opts...); err != nil {
		b.last.begins(start)
		b.last.ends()
		return nil, err
	}
	return &watchedStream{ClientStream: s, testBench: b, start: start}, nil
}

// watchedStream is a client's stream whose request says which call it belongs to.
type watchedStream struct {
	grpc.ClientStream
	*testBench
	start time.Time // Watch was called
	c     *followCall
}

func (s *watchedStream) SendMsg(m any) error {
	s.mu.Lock()
	topic := m.(*feedv1.WatchRequest).GetTopic()
	known := false
	if s.c, known = s.calls[topic]; !known {
		s.c = s.last
	}
	s.mu.Unlock()
	s.c.wrong(!known, "Watch was called for topic %q, want %q", topic, s.c.topic)
	s.c.begins(s.start)
	return s.ClientStream.SendMsg(m)
}

func (s *watchedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.c.ends()
	}
	return err
}

// begins notes an attempt, and the wait before it.
func (c *followCall) begins(start time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.watches)
	c.wrong(c.failed, "handle failed, and follow called Watch again: it took the error for the stream's end, want it to return the error")
	c.wrong(c.final && n >= len(c.streams), "follow called Watch again, want it to return")
	c.wrong(!c.at.IsZero(), "Watch was called after follow had returned")
	c.wrong(c.running, "Watch was called while handle ran")
	if n > 0 {
		last := c.watches[n-1]
		if n == c.served && n <= len(c.streams) {
			c.wrong(last.events < c.streams[n-1].events, "stream %d had %d events, and follow called Watch again when %d of them had been handled, want all",
				n, c.streams[n-1].events, last.events)
		}
		c.wrong(last.ended.IsZero(), "Watch was called for attempt %d while the stream of attempt %d was open, want one at a time", n+1, n)
		if c.row++; last.events > 0 {
			c.row = 1
		}
		since := "since an event was handled"
		if len(c.handled) == 0 {
			since = "of this call of follow"
		}
		wait, most := min(start.Sub(last.ended), start.Sub(c.quiet)).Round(time.Millisecond), mostOf(c.row)
		c.waits = append(c.waits, wait)
		c.wrong(wait < most/2-time.Millisecond || wait > most+time.Millisecond, "attempt %d ended%s, and follow waited %v before attempt %d, want %v to %v: this is wait %d %s",
			n, map[bool]string{true: " after an event", false: " without an event"}[last.events > 0], wait, n+1, most/2, most, c.row, since)
	}
	c.watches = append(c.watches, watchCall{})
}

// mostOf returns the longest that the n-th wait may be.
func mostOf(n int) time.Duration { return min(first<<min(n-1, 10), longest) }

func (c *followCall) ends() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := &c.watches[len(c.watches)-1]; last.ended.IsZero() {
		last.ended = time.Now()
	}
}

func (c *followCall) handle(ev *feedv1.Event) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := &c.watches[len(c.watches)-1]
	event, want := ev.GetBody(), fmt.Sprintf("%d.%d", c.served, last.events+1)
	c.wrong(!c.at.IsZero(), "handle was called for event %s after follow had returned", event)
	c.wrong(c.running, "handle was called for event %s while it ran for another, want one at a time", event)
	c.wrong(c.event == ev, "handle was called for event %s with the same *Event as before, want a new one each time", event)
	c.wrong(event != want, "handle was called for event %q, want event %s", event, want)
	c.wrong(c.failed, "handle was called again, for event %s, want follow to return", event)
	c.wrong(c.ctx.Err() != nil, "handle was called for event %s after the context had ended", event)
	c.running, c.handled, c.event = true, append(c.handled, event), ev
	c.mu.Unlock()
	time.Sleep(c.takes)
	c.mu.Lock()
	c.running, c.quiet, c.failed = false, time.Now(), c.fails[event] != nil
	last.events++
	return c.fails[event]
}

// Watch does what the script of the topic says.
func (b *testBench) Watch(req *feedv1.WatchRequest, s grpc.ServerStreamingServer[feedv1.Event]) error {
	rest := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-s.Context().Done():
		}
	}
	b.mu.Lock()
	c := b.calls[req.GetTopic()]
	b.mu.Unlock()
	c.mu.Lock()
	n := c.served
	c.served++
	c.mu.Unlock()
	if n >= len(c.streams) {
		if c.cancel != nil && !c.stays {
			rest(time.Second)
			c.cancel()
		}
		<-s.Context().Done()
		return s.Context().Err()
	}
	do := c.streams[n]
	if do.header {
		s.SendHeader(nil)
	}
	for i := range do.events {
		rest(time.Millisecond)
		ev := &feedv1.Event{Body: fmt.Sprintf("%d.%d", n+1, i+1)}
		if ev.Id = ev.Body; c.plain {
			ev.Id = map[bool]string{true: "", false: fmt.Sprint(i + 1)}[i == 1]
		}
		if err := s.Send(ev); err != nil {
			return err
		}
	}
	if do.look != nil {
		do.look()
	}
	start := time.Now()
	if rest(do.silence); s.Context().Err() != nil {
		if do.steady {
			c.Errorf("%s: follow ended stream %d after %v of silence, want it left alone", c.what, n+1, time.Since(start))
		}
		return s.Context().Err()
	}
	return do.end
}

// Every code but the three that are final, and OK, which is io.EOF.
func TestFollowOpensAnotherStreamAfterEachEnd(t *testing.T) {
	for code := range codes.Code(17) {
		if slices.Contains([]codes.Code{codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented}, code) {
			continue
		}
		onBench(t, func(b *testBench) {
			end := scripted{events: 2, silence: time.Second, end: status.Error(code, "not now")}
			b.call(fmt.Sprintf("3 streams had 2 events each and ended with %v", code), end, end, end).leave(time.Hour).wantOn()
		})
	}
}

func TestEachEventThatComesIsHandled(t *testing.T) {
	onBench(t, func(b *testBench) {
		end := scripted{events: 3, silence: time.Second}
		c := b.call("the second event of each stream had no id, the others the ids of the stream before", end, end)
		c.plain = true
		c.leave(aDay).wantOn()
	})
	for _, end := range []error{nil, status.Error(codes.Unavailable, "not now")} {
		onBench(t, func(b *testBench) {
			burst := scripted{events: 24, end: end}
			c := b.call("streams had 24 events within 24ms, and ended, and handle took 10ms for each", burst, burst, burst)
			c.takes = 10 * time.Millisecond
			c.leave(aDay).wantOn()
		})
	}
}

func TestEachWaitIsTwiceTheOneBefore(t *testing.T) {
	unavailable := status.Error(codes.Unavailable, "not now")
	for _, s := range []struct {
		what string
		scripted
	}{
		{"the server refused 12 streams with Unavailable", refusals(1)[0]},
		{"12 streams ended with OK, without an event", scripted{}},
		{"12 streams had a header and ended with Unavailable 10s later, without an event", scripted{header: true, silence: 10 * time.Second, end: unavailable}},
		{"12 streams had a header and ended with Internal 30h later, without an event", scripted{header: true, silence: 30 * time.Hour, end: status.Error(codes.Internal, "")}},
	} {
		onBench(t, func(b *testBench) {
			for range 2 { // the second call knows nothing of the first
				b.call(s.what, slices.Repeat([]scripted{s.scripted}, 12)...).leave(100 * aDay).wantOn()
			}
		})
	}
	onBench(t, func(b *testBench) {
		b.call("the server refused 100 streams with Unavailable", refusals(100)...).leave(aDay).wantOn()
	})
}

func TestOnlyAnEventBeginsTheWaitsAnew(t *testing.T) {
	onBench(t, func(b *testBench) {
		down, up := refusals(4), scripted{events: 1, end: status.Error(codes.Unavailable, "")}
		empty := scripted{header: true, silence: time.Minute}
		script := slices.Concat(down, []scripted{up, up, empty, empty}, down, []scripted{up, {}}, down, down, []scripted{up})
		b.call("the server failed, with events in some streams", script...).leave(aDay).wantOn()
	})
	onBench(t, func(b *testBench) {
		c := b.call("the server failed, with an event in each third stream, for which handle took 90s",
			slices.Repeat([]scripted{{}, {}, {events: 1, end: status.Error(codes.Internal, "")}}, 3)...)
		c.takes = 90 * time.Second
		c.leave(aDay).wantOn()
	})
}

// 128 clients whose streams end at one instant. A right answer is refused less
// than once in 2^20.
func TestNoTwoClientsAreInStep(t *testing.T) {
	const clients, waits = 128, 10
	onBench(t, func(b *testBench) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		what := fmt.Sprintf("%d clients began at one instant, and the server refused each stream", clients)
		var all []*followCall
		for n := range clients {
			c := &followCall{testBench: b, what: what, topic: fmt.Sprint("topic ", n), streams: refusals(waits), stays: true, ctx: ctx, cancel: cancel}
			all, b.calls[c.topic], b.last = append(all, c), c, c
		}
		b.Call("follow, which ran for 128 clients, and whose context had ended at last,", aDay, func() {
			var group sync.WaitGroup
			for _, c := range all {
				group.Go(func() { c.err = follow(ctx, c.client, c.topic, c.handle) })
			}
			select {
			case <-time.After(time.Hour):
			case <-ctx.Done(): // somebody has seen a flaw
			}
			cancel()
			group.Wait()
		})
		for _, c := range all {
			c.check()
		}
		steady := 0
		for n, c := range all {
			if c.wantOn(); n > 0 && slices.Equal(c.waits, all[n-1].waits) {
				b.Fatalf("%s: two of them waited %v both times, want no two in step", what, c.waits)
			}
			least, most := 1.0, 0.0
			for i, wait := range c.waits {
				part := float64(wait)/float64(mostOf(i+1)/2) - 1
				least, most = min(least, part), max(most, part)
			}
			if most-least < 0.01 {
				steady++
			}
		}
		if steady > 2 {
			b.Fatalf("of %d clients %d waited the same part of each wait's range in all %d waits, want each wait drawn anew", clients, steady, waits)
		}
		var total [4]int
		var crowd, number int // the most clients that waited the same time, and which wait that was
		var at time.Duration
		for i := range waits {
			half := mostOf(i+1) / 2
			var quarters [4]int
			same := map[time.Duration]int{}
			for _, c := range all {
				q := min(max(4*(c.waits[i]-half)/half, 0), 3)
				quarters[q]++
				total[q]++
				same[c.waits[i]]++
			}
			for q, n := range quarters {
				if n == 0 {
					b.Fatalf("%d clients waited %v to %v for the time of number %d, and not one of them between %v and %v: want the whole range in use", clients,
						half, 2*half, i+1, half+time.Duration(q)*half/4, half+time.Duration(q+1)*half/4)
				}
			}
			for wait, n := range same {
				if n > crowd {
					crowd, at, number = n, wait, i+1
				}
			}
		}
		if crowd >= 10 { // 3 to 5 are usual
			b.Fatalf("%d of %d clients waited %v for the time of number %d: they are in step, want each millisecond of the range as likely as another", crowd, clients, at, number)
		}
		for _, n := range total { // 320 and 15 more or less, if all is even
			if n < 240 || n > 400 {
				b.Fatalf("%d waits of %d clients: %d in the four quarters of their ranges, want about %d in each: drawn evenly", waits*clients, clients, total, waits*clients/4)
			}
		}
	})
}

// A process that draws what another one draws: two are started afresh.
func TestNoTwoProcessesAreInStep(t *testing.T) {
	const child, mark = "WAITS_OF_A_CHILD", "waits: "
	onBench(t, func(b *testBench) {
		c := b.call("the server refused 6 streams with Unavailable", refusals(6)...).leave(aDay).wantOn()
		if os.Getenv(child) != "" {
			fmt.Printf("\n%s%v\n", mark, c.waits)
		}
	})
	if os.Getenv(child) != "" || t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var waits [2]string
	for i := range waits {
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+t.Name()+"$", "-test.count=1", "-test.cpu=1")
		cmd.Env = append(os.Environ(), child+"=1")
		out, err := cmd.CombinedOutput()
		_, after, found := strings.Cut(string(out), "\n"+mark)
		if err != nil || !found {
			t.Fatalf("a process that runs follow: %v\n%s", err, out)
		}
		waits[i], _, _ = strings.Cut(after, "\n")
	}
	if waits[0] == waits[1] {
		t.Fatalf("two processes that ran follow waited %s each, want no two in step", waits[0])
	}
}

func TestAFinalAnswerEndsFollow(t *testing.T) {
	for _, code := range []codes.Code{codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented} {
		for _, script := range [][]scripted{nil, refusals(3), {{events: 2}, {events: 1}}} {
			for _, events := range []int{0, 24} {
				onBench(t, func(b *testBench) {
					text := "the server's own words"
					c := b.call(fmt.Sprintf("stream %d had %d events and ended with %v", len(script)+1, events, code), append(slices.Clone(script), scripted{events: events, end: status.Error(code, text)})...)
					c.final, c.takes = true, 10*time.Millisecond
					c.run(b.Context(), aDay).wantHandled()
					c.wantReturn(c.watches[len(c.watches)-1].ended)
					if codeIn(c.err) != code || !strings.Contains(c.err.Error(), text) {
						c.Fatalf("%s, with the text %q: follow returned %s, want the server's error", c.what, text, errorText(c.err))
					}
				})
			}
		}
	}
}

// wantReturn checks that follow returned soon after, and left nothing.
func (c *followCall) wantReturn(after time.Time) {
	c.Helper()
	if late := min(c.at.Sub(after), c.at.Sub(c.quiet)); late > 100*time.Millisecond {
		c.Fatalf("%s: follow returned %v later, want at once", c.what, late.Round(time.Millisecond))
	}
	if leaks := c.Leaks(); len(leaks) > 0 {
		c.Fatalf("%s: follow returned, and a second later, with its caller's context alive: %s", c.what, strings.Join(leaks, "\n"))
	}
	c.check() // nothing came after the return
}

func TestAnErrorOfHandleEndsFollow(t *testing.T) {
	for _, want := range []error{errors.New("disk full"), status.Error(codes.Unavailable, "disk full"), io.EOF, context.Canceled, context.DeadlineExceeded, status.Error(codes.InvalidArgument, "")} {
		for _, tt := range []struct {
			event  string
			script []scripted
		}{
			{"1.2", []scripted{{events: 5, silence: aDay}}},
			{"3.1", []scripted{{events: 1}, {}, {events: 3, silence: aDay}}},
			{"1.1", []scripted{{events: 1, end: status.Error(codes.Unavailable, "")}}},
		} {
			onBench(t, func(b *testBench) {
				event := tt.event
				c := b.call(fmt.Sprintf("handle returned %q for event %s", want, event), tt.script...)
				c.fails, c.final = map[string]error{event: want}, true
				c.run(b.Context(), 2*aDay)
				if last := c.handled[len(c.handled)-1]; last != event || !errors.Is(c.err, want) {
					c.Fatalf("%s: handle was called last for event %s, and follow returned %v, want this event and this error", c.what, last, c.err)
				}
				c.wantReturn(c.quiet)
			})
		}
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	for _, tt := range []struct {
		where  string
		script []scripted
		after  time.Duration
		takes  time.Duration
		before func(*testBench)
	}{
		{"in the first wait", refusals(1), 200 * time.Millisecond, 0, nil},
		{"in a wait of half a minute or more", refusals(50), 10*time.Minute + 17*time.Second, 0, nil},
		{"in a wait after an event", []scripted{{events: 1, silence: time.Hour}}, time.Hour + 200*time.Millisecond, 0, nil},
		{"while a stream was silent", []scripted{{events: 1, silence: time.Hour}}, 30 * time.Minute, 0, nil},
		{"while handle ran, which took 10s", []scripted{{events: 1, silence: time.Hour}}, 5 * time.Second, 10 * time.Second, nil},
		{"before the call", nil, 0, 0, nil},
		{"while the network was cut", nil, 5 * time.Minute, 0, func(b *testBench) { b.link.Cut() }},
		{"while no dial was answered", nil, 500 * time.Millisecond, 0, func(b *testBench) { b.link.Cut(); time.Sleep(time.Second); b.link.Blackhole() }},
		{"while handle ran, which took 10s, with 2 more events received", []scripted{{events: 3, silence: time.Hour}}, 5 * time.Second, 10 * time.Second, nil},
	} {
		for _, want := range []codes.Code{codes.Canceled, codes.DeadlineExceeded} {
			onBench(t, func(b *testBench) {
				if tt.before != nil {
					tt.before(b)
				}
				c := b.call(fmt.Sprintf("the caller's context ended with %v %s", want, tt.where), tt.script...)
				c.stays, c.takes = true, tt.takes
				end := time.Now().Add(tt.after)
				ctx, cancel := context.WithCancelCause(b.Context())
				defer cancel(nil)
				if want == codes.DeadlineExceeded {
					deadline, stop := context.WithDeadline(ctx, end)
					defer stop()
					ctx = deadline
				} else {
					time.AfterFunc(tt.after, func() { cancel(errors.New("the user left")) })
					b.Settle()
				}
				c.run(ctx, tt.after+time.Hour)
				if early := end.Sub(c.at); early > 0 {
					c.Fatalf("%s: follow returned %s %v before that, want it to go on until then", c.what, errorText(c.err), early)
				}
				cancel(nil)
				c.wantReturn(end)
				if codeIn(c.err) != want {
					c.Fatalf("%s: follow returned %s, want code %v", c.what, errorText(c.err), want)
				}
			})
		}
	}
}

func TestHandleMayFailAfterTheContextEnded(t *testing.T) {
	onBench(t, func(b *testBench) {
		want := errors.New("disk full")
		c := b.call("the caller's context ended while handle ran, which returned an error 5s later", scripted{events: 2, silence: time.Hour})
		c.takes, c.fails = 10*time.Second, map[string]error{"1.1": want}
		ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
		defer cancel()
		if c.run(ctx, time.Hour); !errors.Is(c.err, want) {
			c.Fatalf("%s: follow returned %v, want the error of handle, %q", c.what, c.err, want)
		}
		c.wantReturn(c.quiet)
	})
}

func TestASilentStreamIsLeftAlone(t *testing.T) {
	onBench(t, func(b *testBench) {
		quiet := scripted{events: 1, silence: 3 * aDay, steady: true}
		b.call("streams had an event and were silent for 3 days", quiet, quiet).leave(10 * aDay).wantOn()
	})
}

func TestNothingIsKeptOfAnAttemptThatHasEnded(t *testing.T) {
	onBench(t, func(b *testBench) {
		var left []string
		alive := map[<-chan struct{}]bool{}
		c := b.call("200 attempts had failed", append(refusals(200), scripted{silence: aDay, end: status.Error(codes.PermissionDenied, ""), look: func() {
			left = b.Leaks()
			for _, ctx := range b.contexts {
				if ctx.Err() == nil {
					alive[ctx.Done()] = true
				}
			}
		}})...)
		c.final = true
		c.run(b.Context(), 10*aDay)
		for _, line := range left {
			if strings.Contains(line, "(200 times)") || strings.Contains(line, "(201 times)") {
				c.Fatalf("%s, and attempt 201 had a stream: %s", c.what, line)
			}
		}
		if len(alive) > 100 {
			c.Fatalf("%s, and attempt 201 had a stream: %d contexts that Watch was called with had not ended", c.what, len(alive))
		}
	})
}

func TestFollowComesBackWithTheNetwork(t *testing.T) {
	for _, tt := range []struct {
		what      string
		end, back func(*testBench)
	}{
		{"the connection was cut", func(b *testBench) { b.link.Cut() }, func(b *testBench) { b.link.Heal() }},
		{"the server was stopped", func(b *testBench) { b.srv.Stop() }, func(b *testBench) { b.serve() }},
		{"the network was dead", func(b *testBench) { b.link.Blackhole() }, func(b *testBench) { b.link.Heal() }},
	} {
		for _, down := range []time.Duration{0, time.Minute, 10 * time.Minute} {
			onBench(t, func(b *testBench) {
				c := b.call(fmt.Sprintf("%s for %v", tt.what, down), scripted{events: 1, silence: 2 * aDay}, scripted{events: 1, silence: 2 * aDay})
				var back time.Time
				ctx, cancel := context.WithCancel(b.Context())
				defer cancel()
				time.AfterFunc(10*time.Second, func() {
					tt.end(b)
					time.Sleep(down)
					tt.back(b)
					back = time.Now()
					time.Sleep(5 * time.Minute)
					cancel()
				})
				c.run(ctx, time.Hour)
				if want := 2 * longest; c.quiet.Sub(back) > want || down > 0 && len(c.handled) != 2 {
					c.Fatalf("%s: events %q were handled, the last one %v after it was back, want an event of a second stream, %v after that at most", c.what, c.handled, c.quiet.Sub(back).Round(time.Millisecond), want)
				}
			}, grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
		}
	}
}
