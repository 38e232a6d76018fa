package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// A chain is a client, relays and an origin, with a link from each to the next.
type chain struct {
	*lab.Lab
	origin     *origin
	script     func(watchServer) error // what the origin's Watch does instead, if set
	auditTakes time.Duration           // at the origin
	client     feedv1.FeedServiceClient
	hops       []*hop // from the client's to the origin's
}

// A hop is a link, the client's end of it and the server's.
type hop struct {
	link  *lab.Link
	conn  *grpc.ClientConn
	srv   *grpc.Server
	knows chan time.Time // when the context of a Watch ended
	ends  chan end       // how and when a Watch returned
}

type end struct {
	at  time.Time
	err error
}

// newChain makes a chain of relays with these handlers, from the client's on.
// Its origin has an event each ten minutes.
func newChain(l *lab.Lab, handles ...handler) *chain {
	c := &chain{Lab: l, origin: newOrigin(10 * time.Minute)}
	c.add(scripted{c.origin, c})
	for _, handle := range slices.Backward(handles) {
		c.addRelay(handle)
	}
	c.mark()
	return c
}

// newSlowChain makes a chain with one relay, whose audits take three seconds.
func newSlowChain(l *lab.Lab, handle handler, opts ...grpc.ServerOption) *chain {
	c := newChain(l)
	c.auditTakes = 3 * time.Second
	c.addRelay(handle, opts...)
	c.mark()
	return c
}

type scripted struct {
	*origin
	c *chain
}

func (s scripted) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	if s.c.script != nil {
		return s.c.script(stream)
	}
	return s.origin.Watch(req, stream)
}

func (s scripted) Publish(ctx context.Context, req *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	time.Sleep(s.c.auditTakes)
	return s.origin.Publish(ctx, req)
}

// mark lets the times of all recordings begin now.
func (c *chain) mark() {
	for _, h := range c.hops {
		h.link.Mark()
	}
}

func (c *chain) addRelay(handle handler, opts ...grpc.ServerOption) {
	c.add(&relay{upstream: c.client, handle: handle, patience: 5 * time.Second}, opts...)
}

// add puts a server before the ones that are there.
func (c *chain) add(svc feedv1.FeedServiceServer, opts ...grpc.ServerOption) {
	h := &hop{link: c.NewLink(), knows: make(chan time.Time, 9), ends: make(chan end, 9)}
	h.srv = h.link.Serve(svc, append(opts, grpc.ChainStreamInterceptor(
		func(svc any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			context.AfterFunc(stream.Context(), func() { h.knows <- time.Now() })
			err := next(svc, stream)
			h.ends <- end{time.Now(), err}
			return err
		}))...)
	h.conn = h.link.Dial()
	c.client = feedv1.NewFeedServiceClient(h.conn)
	c.hops = append([]*hop{h}, c.hops...)
}

func (c *chain) last() *hop { return c.hops[len(c.hops)-1] }

// watches opens a Watch and returns when its first event is here. What ends the
// stream comes on the channel.
func (c *chain) watches(ctx context.Context) <-chan end {
	c.Helper()
	stream, err := c.client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		c.Fatal(err)
	}
	ended := make(chan end, 1)
	go func() {
		for err == nil {
			_, err = stream.Recv()
		}
		ended <- end{time.Now(), err}
	}()
	return ended
}

// sent lists what the client's end of a hop sent, HEADERS and RST_STREAM alone.
func (h *hop) sent() (frames []string) {
	for _, f := range h.link.Frames() {
		if f.From == lab.Client && (f.Type == "HEADERS" || f.Type == "RST_STREAM") {
			frames = append(frames, f.Type+" "+f.Text)
		}
	}
	return frames
}

const half = 500 * time.Millisecond

// The recording that the README shows: watchDetached and watch, from the cancel
// on. A relay takes a millisecond before its audit.
func TestTheRecordingIsFresh(t *testing.T) {
	var ladders []string
	for _, handle := range []handler{(*relay).watchDetached, (*relay).watch} {
		lab.Run(t, func(l *lab.Lab) {
			var c *chain
			c = newChain(l, func(r *relay, req *feedv1.WatchRequest, stream watchServer) error {
				context.AfterFunc(stream.Context(), func() {
					c.hops[0].link.Note(lab.Server, "the context: canceled")
				})
				noted := *r
				noted.upstream = slowAudits{r.upstream}
				err := handle(&noted, req, stream)
				c.hops[0].link.Note(lab.Server, "Watch returns %v", status.Code(err))
				return err
			})
			ctx, cancel := context.WithCancel(l.Context())
			c.watches(ctx)
			time.Sleep(half)
			c.mark()
			cancel()
			time.Sleep(25 * time.Minute)
			c.last().link.Note(lab.Server, "handlers at the origin: %d", c.origin.running.Load())
			ladders = append(ladders, ladder(c.hops))
			c.last().conn.Close()
		}, lab.Lasts(time.Hour))
	}
	lab.Golden(t, "wire.txt", strings.Join(ladders, "\n"))
}

type slowAudits struct{ feedv1.FeedServiceClient }

func (s slowAudits) Publish(ctx context.Context, req *feedv1.PublishRequest, opts ...grpc.CallOption) (*feedv1.PublishResponse, error) {
	time.Sleep(time.Millisecond)
	return s.FeedServiceClient.Publish(ctx, req, opts...)
}

// ladder draws two hops side by side, each as lab.Link.Ladder draws one.
func ladder(hops []*hop) string {
	const width = 43
	type row struct {
		at     time.Duration
		column int
		text   string
	}
	var rows []row
	for i, h := range hops {
		for _, f := range h.link.Frames() {
			text := f.Type + " " + strings.TrimPrefix(f.Text, "/feed.v1.FeedService/")
			runes := []rune(strings.Join(strings.Fields(text), " "))
			if len(runes) > width-3 {
				runes = append(runes[:width-4], '…')
			}
			text = string(runes)
			room := width - 3 - len(runes)
			switch {
			case f.Type == "" && f.From == lab.Server:
				text = strings.Repeat(" ", room+3) + text
			case f.From == lab.Server:
				text = "◀" + strings.Repeat("─", room+1) + " " + text
			default:
				text += " " + strings.Repeat("─", room+1) + "▶"
			}
			rows = append(rows, row{f.At, 12 + i*(width+2), text})
		}
	}
	slices.SortStableFunc(rows, func(a, b row) int { return int(a.at - b.at) })
	var b strings.Builder
	fmt.Fprintf(&b, "%10s  client%42s%40s\n", "ms", "relay", "origin")
	for _, r := range rows {
		at := fmt.Sprintf("%.3f", float64(r.at)/float64(time.Millisecond))
		if r.at >= time.Minute {
			at = r.at.Round(10 * time.Millisecond).String()
		}
		fmt.Fprintf(&b, "%10s%*s%s\n", at, r.column-10, "", r.text)
	}
	return b.String()
}

func TestACancelTakesOneLatencyForEachHop(t *testing.T) {
	for n := range 5 {
		lab.Run(t, func(l *lab.Lab) {
			c := newChain(l, slices.Repeat([]handler{(*relay).watch}, n)...)
			ctx, cancel := context.WithCancel(l.Context())
			c.watches(ctx)
			time.Sleep(half)
			cancel()
			start := time.Now()
			knows := (<-c.last().knows).Sub(start)
			if want := time.Duration(n+1) * lab.Latency; knows != want {
				l.Errorf("with %d relays the origin knew of the cancel after %v, want %v", n, knows, want)
			}
			for i, h := range c.hops {
				if frames := h.sent(); !slices.Contains(frames, "RST_STREAM CANCEL") {
					l.Errorf("hop %d: the client's end sent %q, want a RST_STREAM CANCEL", i+1, frames)
				}
			}
			l.Logf("%d hops: the origin knows after %v", n+1, knows)
		})
	}
}

// deaf takes an event and then an hour, in which it hears nothing.
func deaf(r *relay, req *feedv1.WatchRequest, stream watchServer) error {
	err := r.pass(stream.Context(), req, stream, 1)
	time.Sleep(time.Hour)
	return err
}

// A client stream has a goroutine of its own that waits for its context
// (stream.go, newClientStreamWithParams).
func TestTheCancelPassesARelayThatDoesNotListen(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		c := newChain(l, deaf)
		ctx, cancel := context.WithCancel(l.Context())
		c.watches(ctx)
		time.Sleep(half)
		cancel()
		start := time.Now()
		if knows := (<-c.last().knows).Sub(start); knows != 2*lab.Latency {
			l.Errorf("the origin knew after %v, want %v", knows, 2*lab.Latency)
		}
		if e := <-c.hops[0].ends; e.at.Sub(start) < 59*time.Minute {
			l.Errorf("the relay's handler returned after %v, want nearly an hour", e.at.Sub(start))
		}
		l.Log("the relay sleeps, and the origin knows after two latencies")
	}, lab.Lasts(2*time.Hour))
}

func TestOnABackgroundTheCancelStopsAtTheRelay(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		c := newChain(l, (*relay).watchDetached)
		ctx, cancel := context.WithCancel(l.Context())
		start := time.Now()
		c.watches(ctx)
		time.Sleep(half)
		cancel()
		if knows := (<-c.hops[0].knows).Sub(start); knows > time.Second {
			l.Errorf("the relay's context ended after %v", knows)
		}
		leaks := strings.Join(l.Leaks(), "\n")
		for _, want := range []string{"the server's Watch handler still runs: blocked in Recv at main.go:",
			"the server's Watch handler still runs: blocked in a select at main.go:", "1 of 2 RPCs never ended (Watch, opened at main.go:"} {
			if !strings.Contains(leaks, want) {
				l.Errorf("a second after the cancel the lab finds %q, want also %q", leaks, want)
			}
		}
		e := <-c.hops[0].ends
		if late := e.at.Sub(start); late != 10*time.Minute+3*lab.Latency || status.Code(e.err) != codes.Canceled {
			l.Errorf("the relay's handler returned %v after %v, want Canceled with the event after ten minutes", e.err, late)
		}
		time.Sleep(24 * time.Hour)
		if n, frames := c.origin.running.Load(), c.last().sent(); n != 1 || len(frames) != 1 {
			l.Errorf("a day later the origin has %d handlers, and the relay sent it %q, want 1 and its request", n, frames)
		}
		l.Logf("the relay's handler ends after %v; a day later the origin's runs", e.at.Sub(start))
		c.last().conn.Close()
	}, lab.Lasts(26*time.Hour))
}

// endings are what may happen to a stream after half a second, on either hop.
// gRPC rounds the deadline up to a microsecond, so that the RST_STREAM of each
// client comes 1 ns before the server's own timer.
const deadline = time.Second - time.Nanosecond

var endings = []struct {
	name string
	end  func(c *chain, cancel func(), script chan error)
}{
	{"client cancels", func(_ *chain, cancel func(), _ chan error) { cancel() }},
	{"client's deadline", func(*chain, func(), chan error) { time.Sleep(deadline - half) }},
	{"first hop is cut", func(c *chain, _ func(), _ chan error) { c.hops[0].link.Cut() }},
	{"relay stops", func(c *chain, _ func(), _ chan error) { c.hops[0].srv.Stop() }},
	{"origin: nil", func(_ *chain, _ func(), script chan error) { script <- nil }},
	{"origin: NotFound", says(codes.NotFound)},
	{"origin: PermissionDenied", says(codes.PermissionDenied)},
	{"origin: Canceled", says(codes.Canceled)},
	{"relay closes", func(c *chain, _ func(), _ chan error) { c.last().conn.Close() }},
	{"second hop is cut", func(c *chain, _ func(), _ chan error) { c.last().link.Cut() }},
}

func says(code codes.Code) func(*chain, func(), chan error) {
	return func(_ *chain, _ func(), script chan error) { script <- status.Error(code, "so it is") }
}

// outcome is how one ending reads at the three of a chain.
type outcome struct {
	client, relay codes.Code
	origin        string // when it knows
	audit         string
}

func play(t *testing.T, i int, handle handler) (o outcome) {
	lab.Run(t, func(l *lab.Lab) {
		c := newChain(l, handle)
		script := make(chan error, 1)
		c.script = func(stream watchServer) error {
			for {
				if err := stream.Send(&feedv1.Event{Topic: "alerts"}); err != nil {
					return err
				}
				select {
				case <-time.After(10 * time.Minute):
				case <-stream.Context().Done():
					return stream.Context().Err()
				case err := <-script:
					return err
				}
			}
		}
		ctx, cancel := context.WithTimeout(l.Context(), deadline)
		if endings[i].name != "client's deadline" {
			ctx, cancel = context.WithCancel(l.Context())
		}
		opened := time.Now()
		ended := c.watches(ctx)
		time.Sleep(time.Until(opened.Add(half)))
		endings[i].end(c, cancel, script)
		start := time.Now()
		o.client, o.relay = codeOf((<-ended).err), codeOf((<-c.hops[0].ends).err)
		time.Sleep(24 * time.Hour)
		o.origin, o.audit = "never", "no"
		switch {
		case strings.HasPrefix(endings[i].name, "origin"):
			o.origin = "-"
		case len(c.last().knows) > 0:
			o.origin = fmt.Sprintf("%.1f ms", float64((<-c.last().knows).Sub(start))/float64(time.Millisecond))
		}
		if len(c.origin.audits) > 0 {
			o.audit = "yes"
		}
		cancel()
		c.last().conn.Close()
	}, lab.Lasts(26*time.Hour))
	return o
}

func codeOf(err error) codes.Code {
	if errors.Is(err, io.EOF) {
		return codes.OK
	}
	if st, ok := status.FromError(err); ok {
		return st.Code()
	}
	return status.FromContextError(err).Code()
}

func TestTheEndingsOfBothHopsAreMeasured(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, "%-27s%-36s%s\n", "", "watchDetached", "watch")
	fmt.Fprintf(&b, "%-25s  %-17s %-8s %-5s   %-17s %-8s %s\n", "what happens", "client reads", "origin", "audit", "client reads", "origin", "audit")
	for i, e := range endings {
		d, w := play(t, i, (*relay).watchDetached), play(t, i, (*relay).watch)
		fmt.Fprintf(&b, "%-25s  %-17v %-8s %-5s   %-17v %-8s %s\n", e.name, d.client, d.origin, d.audit, w.client, w.origin, w.audit)
		t.Logf("%s: the relay returns %v and %v", e.name, d.relay, w.relay)
	}
	lab.Golden(t, "endings.txt", b.String())
}

// pass sends on n events, or all if n is negative.
func (r *relay) pass(ctx context.Context, req *feedv1.WatchRequest, stream watchServer, n int) error {
	upstream, err := r.upstream.Watch(ctx, req)
	for ; err == nil && n != 0; n-- {
		var ev *feedv1.Event
		if ev, err = upstream.Recv(); err == nil {
			err = stream.Send(ev)
		}
	}
	return err
}

// Nobody reads what a handler returns to a client that has left, but
// interceptors and metrics count it.
func TestAClientThatLeftIsNoFailureOfTheUpstream(t *testing.T) {
	for i, e := range endings[:4] {
		if o := play(t, i, (*relay).watch); o.relay != codes.Canceled {
			t.Errorf("%s, and the relay returned %v, want Canceled", e.name, o.relay)
		}
		blaming := func(r *relay, req *feedv1.WatchRequest, stream watchServer) error {
			err := r.pass(stream.Context(), req, stream, -1)
			return translate(context.Background(), err) // asks a context that never ends
		}
		o := play(t, i, blaming)
		if o.relay != codes.Unavailable {
			t.Errorf("%s, and a relay that did not ask its client returned %v, want Unavailable", e.name, o.relay)
		}
		t.Logf("%s: Canceled, or %v if nobody asks the client's context", e.name, o.relay)
	}
}

// late is a context whose deadline is over and whose timer has not run.
type late struct{ context.Context }

func (late) Deadline() (time.Time, bool) { return time.Now(), true }

// Recv asks the clock as well: of a RST_STREAM CANCEL past the deadline it makes
// DeadlineExceeded (http2_client.go, handleRSTStream), whatever ctx.Err() says.
func TestTheClockKnowsOfADeadlineBeforeTheContextDoes(t *testing.T) {
	ctx, origins := late{context.Background()}, status.Error(codes.DeadlineExceeded, "stream terminated by RST_STREAM")
	if err := translate(ctx, origins); ctx.Err() != nil || status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("past the client's deadline, with ctx.Err() %v, translate made %v of %v", ctx.Err(), err, origins)
	}
	if err := translate(context.Background(), origins); status.Code(err) != codes.Unavailable {
		t.Errorf("for a client without a deadline translate made %v of %v", err, origins)
	}
	t.Logf("%v is the client's if its deadline is over, and else the origin's", origins)
}

// SendMsg writes the status before it returns (stream.go), and that cancels the
// stream's context (http2_server.go, finishStream).
func TestAFailedSendEndsTheUpstreamBeforeTheAudit(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		c := newSlowChain(l, (*relay).watch, grpc.MaxSendMsgSize(100))
		arrives := make(chan time.Time, 1)
		c.script = func(stream watchServer) error {
			stream.Send(&feedv1.Event{})
			time.Sleep(half)
			stream.Send(&feedv1.Event{Body: strings.Repeat("x", 200)})
			arrives <- time.Now().Add(lab.Latency) // at the relay, where Send fails
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		e := <-c.watches(l.Context())
		failed := <-arrives
		reads, knows, returned := e.at.Sub(failed), (<-c.last().knows).Sub(failed), (<-c.hops[0].ends).at.Sub(failed)
		if reads != lab.Latency || knows != lab.Latency || returned != 3*time.Second+2*lab.Latency || codeOf(e.err) != codes.ResourceExhausted {
			l.Errorf("Send failed: the origin knew %v later, the client read %v %v later, and the relay returned %v later; want %v, ResourceExhausted as late, 3s and 2 latencies",
				knows, e.err, reads, returned, lab.Latency)
		}
		l.Logf("Send fails: %v later the origin knows, %v later the client reads %v, %v later the relay returns", knows, reads, codeOf(e.err), returned)
	})
}

// finishStream again: the return of a handler sends its status and cancels its
// context.
func TestTheClientAndTheUpstreamWaitForTheAudit(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		decided := make(chan time.Time, 1)
		c := newSlowChain(l, func(r *relay, req *feedv1.WatchRequest, stream watchServer) error {
			r.pass(stream.Context(), req, stream, 1)
			decided <- time.Now()
			r.audit(stream.Context(), req.GetTopic(), 1)
			return status.Error(codes.Aborted, "one is enough")
		})
		e, start := <-c.watches(l.Context()), <-decided
		reads, knows := e.at.Sub(start), (<-c.last().knows).Sub(start)
		want := 3*time.Second + 3*lab.Latency
		if reads != want || knows != want || codeOf(e.err) != codes.Aborted {
			l.Errorf("the relay decided to leave: the client read %v %v later, the origin knew %v later; want Aborted, and %v for both",
				e.err, reads, knows, want)
		}
		l.Logf("the relay decides to leave: %v later the client reads %v, %v later the origin knows", reads, codeOf(e.err), knows)
	})
}

// Stop ends the contexts of all streams first. A handler that waits on another
// context holds it up for as long.
func TestStopWaitsForTheAuditIfAsked(t *testing.T) {
	for _, tt := range []struct {
		name   string
		handle handler
		wait   bool
		took   time.Duration
		audits int
	}{
		{"watch", (*relay).watch, false, 0, 0},
		{"watch", (*relay).watch, true, 3*time.Second + 2*lab.Latency, 1},
		{"watchDetached", (*relay).watchDetached, true, 10*time.Minute - half - lab.Latency, 0}, // at the next event
	} {
		lab.Run(t, func(l *lab.Lab) {
			c := newSlowChain(l, tt.handle, grpc.WaitForHandlers(tt.wait))
			c.watches(l.Context())
			time.Sleep(half)
			start := time.Now()
			c.hops[0].srv.Stop()
			took, audits := time.Since(start), len(c.origin.audits)
			if took != tt.took || audits != tt.audits {
				l.Errorf("%s, WaitForHandlers(%t): Stop returned after %v, and the origin had %d audits; want %v and %d",
					tt.name, tt.wait, took, audits, tt.took, tt.audits)
			}
			l.Logf("%s, WaitForHandlers(%t): Stop returns after %v, with %d audits", tt.name, tt.wait, took, audits)
			time.Sleep(4 * time.Second)
			c.last().conn.Close()
		}, lab.Lasts(time.Hour))
	}
}

// workFirst makes a relay that works for a while before it calls.
func workFirst(d time.Duration) handler {
	return func(r *relay, req *feedv1.WatchRequest, stream watchServer) error {
		time.Sleep(d)
		return (*relay).watch(r, req, stream)
	}
}

func TestTheTimeoutShrinksByWhatARelayTakes(t *testing.T) {
	for _, tt := range []struct {
		work time.Duration
		want []string
	}{
		{0, []string{"1000000u", "1000000u", "1000000u", "1000000u"}},
		{100 * time.Millisecond, []string{"1000000u", "900000u", "800000u", "700000u"}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			c := newChain(l, workFirst(tt.work), workFirst(tt.work), workFirst(tt.work))
			start := time.Now()
			ctx, cancel := context.WithTimeout(l.Context(), deadline)
			defer cancel()
			c.watches(ctx)
			var timeouts []string
			for _, h := range c.hops {
				timeouts = append(timeouts, h.link.Frames()[0].Field("grpc-timeout"))
			}
			opened := start.Add(4*lab.Latency + 3*tt.work)
			late := opened.Add(<-c.origin.left).Sub(start.Add(time.Second))
			if !slices.Equal(timeouts, tt.want) || late != 4*lab.Latency {
				l.Errorf("the hops carried %q and the origin's deadline is %v later than the client's, want %q and %v", timeouts, late, tt.want, 4*lab.Latency)
			}
			l.Logf("relays that take %v: %q, and the origin's deadline is %v later than the client's", tt.work, timeouts, late)
		})
	}
}

// Both are lost on the second hop. The deadline is there already.
func TestADeadlineReachesWhereACancelIsLost(t *testing.T) {
	for _, how := range []string{"cancel", "deadline"} {
		lab.Run(t, func(l *lab.Lab) {
			c := newChain(l, (*relay).watch)
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			if how == "deadline" {
				ctx, cancel = context.WithTimeout(ctx, deadline)
				defer cancel()
			}
			start := time.Now()
			c.watches(ctx)
			c.last().link.Blackhole()
			time.Sleep(time.Second)
			cancel()
			time.Sleep(time.Hour)
			heard := len(c.last().knows) == 1
			if heard != (how == "deadline") {
				l.Errorf("%s: an hour later the origin has heard of it: %t", how, heard)
			}
			if heard {
				if late := (<-c.last().knows).Sub(start); late != time.Second+2*lab.Latency {
					l.Errorf("the origin's context ended after %v, want the second and 2 latencies", late)
				}
			}
			l.Logf("%s in a dead network: an hour later the origin has heard of it: %t", how, heard)
			c.last().link.Heal()
		}, lab.Lasts(2*time.Hour))
	}
}

func TestATimeoutOfItsOwnEndsTooEarlyAndTooLate(t *testing.T) {
	aMinute := func(r *relay, req *feedv1.WatchRequest, stream watchServer) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute-time.Nanosecond)
		defer cancel()
		return r.pass(ctx, req, stream, -1)
	}
	lab.Run(t, func(l *lab.Lab) {
		c := newChain(l, aMinute)
		start := time.Now()
		e := <-c.watches(l.Context()) // a client without a deadline
		after := e.at.Sub(start)
		if after != time.Minute-time.Nanosecond+2*lab.Latency || codeOf(e.err) != codes.DeadlineExceeded {
			l.Errorf("the client without a deadline read %v after %v, want DeadlineExceeded after the relay's minute", e.err, after)
		}
		<-c.last().knows
		start = time.Now()
		ctx, cancel := context.WithCancel(l.Context())
		c.watches(ctx)
		cancel()
		late := (<-c.last().knows).Sub(start)
		if late != time.Minute-time.Nanosecond+2*lab.Latency {
			l.Errorf("the client left, and the origin knew after %v, want the relay's minute and 2 latencies", late)
		}
		l.Logf("the client stays: %v after %v; it leaves at once: the origin knows after %v", codeOf(e.err), after, late)
	})
}

// afterTheEnd calls f when the stream is over.
func afterTheEnd(f func(r *relay, ctx context.Context)) handler {
	return func(r *relay, req *feedv1.WatchRequest, stream watchServer) error {
		stream.Send(&feedv1.Event{})
		<-stream.Context().Done()
		f(r, stream.Context())
		return stream.Context().Err()
	}
}

func TestACallOnADeadContextSendsNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var audit error
		c := newChain(l, afterTheEnd(func(r *relay, ctx context.Context) { audit = r.audit(ctx, "alerts", 1) }))
		ctx, cancel := context.WithCancel(l.Context())
		c.watches(ctx)
		cancel()
		<-c.hops[0].ends
		if frames := c.last().link.Frames(); len(frames) > 0 || status.Code(audit) != codes.Canceled {
			l.Errorf("the audit returned %v and sent %v, want Canceled and nothing", audit, frames)
		}
		c.mark()
		ctx, cancel = context.WithTimeout(l.Context(), time.Microsecond)
		defer cancel()
		time.Sleep(time.Second)
		_, late := c.client.Watch(ctx, &feedv1.WatchRequest{})
		if frames := c.hops[0].link.Frames(); len(frames) > 0 || status.Code(late) != codes.DeadlineExceeded {
			l.Errorf("after its deadline Watch returned %v and sent %v, want DeadlineExceeded and nothing", late, frames)
		}
		l.Logf("after the cancel: %v; after the deadline: %v; frames: none", audit, late)
	})
}

func TestWithoutCancelKeepsTheValuesAndDropsTheDeadline(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var last context.Context
		c := newChain(l, afterTheEnd(func(_ *relay, ctx context.Context) { last = context.WithoutCancel(ctx) }))
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(l.Context(), "user", "ann"), time.Minute)
		c.watches(ctx)
		cancel()
		<-c.hops[0].ends
		_, hasDeadline := last.Deadline()
		if user := metadata.ValueFromIncomingContext(last, "user"); !slices.Equal(user, []string{"ann"}) || hasDeadline || last.Err() != nil || last.Done() != nil {
			l.Errorf("WithoutCancel has the user %q, a deadline: %t, Err %v, Done %v", user, hasDeadline, last.Err(), last.Done())
		}
		l.Log("after the cancel: the client's metadata, no deadline, no error and no Done")
	})
}

func TestMetadataDoesNotTravelWithTheContext(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		c := newChain(l, (*relay).watch)
		ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(l.Context(), "user", "ann"))
		defer cancel()
		c.watches(ctx)
		first, second := c.hops[0].link.Frames()[0].Field("user"), c.last().link.Frames()[0].Field("user")
		if first != "ann" || second != "" {
			l.Errorf("the user on the hops is %q and %q, want ann and none", first, second)
		}
		l.Logf("the user on the first hop: %q, on the second: %q", first, second)
	})
}

func TestAnAuditWithoutABoundHoldsItsHandler(t *testing.T) {
	unbound := func(r *relay, ctx context.Context) { r.audit(context.WithoutCancel(ctx), "alerts", 1) }
	for _, tt := range []struct {
		name   string
		handle handler
		want   string
	}{
		{"watch", (*relay).watch, "5s"},
		{"without a bound", afterTheEnd(unbound), "an hour and longer"},
	} {
		lab.Run(t, func(l *lab.Lab) {
			c := newChain(l, tt.handle)
			ctx, cancel := context.WithCancel(l.Context())
			c.watches(ctx)
			c.last().link.Blackhole()
			cancel()
			start := time.Now().Add(lab.Latency)
			time.Sleep(time.Hour)
			held := "an hour and longer"
			if len(c.hops[0].ends) == 1 {
				held = (<-c.hops[0].ends).at.Sub(start).String()
			}
			if held != tt.want {
				l.Errorf("%s: in a dead network the audit held the handler for %s, want %s", tt.name, held, tt.want)
			}
			l.Logf("%s: in a dead network the audit holds the handler for %s", tt.name, held)
			c.last().link.Heal()
		}, lab.Lasts(2*time.Hour))
	}
}
