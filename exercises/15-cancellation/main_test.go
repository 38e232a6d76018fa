package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

type (
	watchServer = grpc.ServerStreamingServer[feedv1.Event]
	watchClient = grpc.ServerStreamingClient[feedv1.Event]
)

const (
	soon  = 100 * time.Millisecond  // what Watch may take for whatever it does
	takes = 1990 * time.Millisecond // what an audit takes
	bound = 5 * time.Second         // when an audit that hangs must be over
)

// A bench is a client, the answer's relay and an origin, and follows what the
// relay does.
type bench struct {
	l             *lab.Lab
	relay, origin *side
	client        feedv1.FeedServiceClient
	script        func(watchServer) error // what the origin does; three if not set
	end           chan error              // ends what the origin does
	hang          bool                    // audits do

	mu      sync.Mutex
	asked   []request // at the origin
	audits  []*audited
	watches []*watched
}

// A side is a server and the way to it.
type side struct {
	link *lab.Link
	srv  *grpc.Server
	conn *grpc.ClientConn
}

type request struct {
	topic    string
	deadline time.Time // zero if there is none
}

// audited is a call of audit.
type audited struct {
	topic       string
	sent        int
	who         string // what its context knows of the client
	dead        error  // its context's, at the beginning
	cut         bool   // its context ended too early
	began, over time.Time
}

// watched is a call of the answer's Watch.
type watched struct {
	watchServer
	b      *bench
	sent   int   // Sends that returned nil
	failed error // the last one
	over   time.Time
	err    error
}

func newBench(l *lab.Lab, opts ...grpc.ServerOption) *bench {
	b := &bench{l: l, end: make(chan error, 1)}
	b.script = b.three
	b.origin = b.serve(feed{b: b})
	b.relay = b.serve(followed{&relay{upstream: feedv1.NewFeedServiceClient(b.origin.conn), audit: b.audit}, b}, opts...)
	b.client = feedv1.NewFeedServiceClient(b.relay.conn)
	return b
}

func (b *bench) serve(svc feedv1.FeedServiceServer, opts ...grpc.ServerOption) *side {
	s := &side{link: b.l.NewLink()}
	s.srv = s.link.Serve(svc, opts...)
	s.conn = s.link.Dial()
	return s
}

// feed is the origin.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	b *bench
}

func (f feed) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	deadline, _ := stream.Context().Deadline()
	f.b.mu.Lock()
	f.b.asked = append(f.b.asked, request{req.GetTopic(), deadline})
	f.b.mu.Unlock()
	return f.b.script(stream)
}

const (
	topic = "deploys"
	who   = "[ann] [reader editor]" // the client: its user and its roles
)

// event is the event with the given number. The second equals the first.
func event(i int, body string) *feedv1.Event {
	return &feedv1.Event{Id: fmt.Sprint(max(1, i)), Topic: topic, Body: body}
}

// three is an origin that sends three events and stays.
func (b *bench) three(stream watchServer) error { return b.send(stream, 3, "") }

func (b *bench) send(stream watchServer, n int, body string) error {
	for i := range n {
		if err := stream.Send(event(i, body)); err != nil {
			return err
		}
	}
	select {
	case err := <-b.end:
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// followed is the answer's relay.
type followed struct {
	*relay
	b *bench
}

func (f followed) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	w := &watched{watchServer: stream, b: f.b}
	f.b.mu.Lock()
	f.b.watches = append(f.b.watches, w)
	f.b.mu.Unlock()
	err := f.relay.Watch(req, w)
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	w.over, w.err = time.Now(), err
	return err
}

func (w *watched) Send(ev *feedv1.Event) error { return w.count(w.watchServer.Send(ev)) }
func (w *watched) SendMsg(m any) error         { return w.count(w.watchServer.SendMsg(m)) }

func (w *watched) count(err error) error {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	if w.failed = err; err == nil {
		w.sent++
	}
	return err
}

func (b *bench) audit(ctx context.Context, topic string, sent int) {
	knows := fmt.Sprint(metadata.ValueFromIncomingContext(ctx, "user"), metadata.ValueFromIncomingContext(ctx, "role"))
	a := &audited{topic: topic, sent: sent, began: time.Now(), dead: ctx.Err(), who: knows}
	b.mu.Lock()
	b.audits = append(b.audits, a)
	b.mu.Unlock()
	done := time.After(takes)
	if b.hang {
		done = nil
	}
	cut := false
	select {
	case <-done:
	case <-ctx.Done():
		cut = time.Since(a.began) < takes
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	a.cut, a.over = cut, time.Now()
}

// enter opens a Watch and reads n events.
func (b *bench) enter(ctx context.Context, n int) watchClient {
	b.l.Helper()
	ctx = metadata.AppendToOutgoingContext(ctx, "user", "ann", "role", "reader", "role", "editor")
	stream, err := b.client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		b.l.Fatal(err)
	}
	for i := range n {
		b.next(stream, event(i, ""))
	}
	return stream
}

// next wants the client to receive an event that the upstream has sent.
func (b *bench) next(stream watchClient, want *feedv1.Event) {
	b.l.Helper()
	var ev *feedv1.Event
	var err error
	b.l.Call("the upstream sent an event, and the client's Recv", soon, func() { ev, err = stream.Recv() })
	if err != nil {
		b.l.Fatalf("the upstream sent an event, and the client's Recv returned %v instead of it", err)
	}
	if got := lab.Text(ev); got != lab.Text(want) {
		b.l.Fatalf("the client got %s, want %s", got, lab.Text(want))
	}
}

// opened returns how many streams the answer has opened, and says if one of
// them is open.
func (b *bench) opened() (n int, open string) {
	for _, rpc := range b.l.RPCs() {
		if !strings.HasPrefix(rpc.OpenedAt, "answer.go") {
			continue
		}
		if n++; !rpc.Ended {
			open = fmt.Sprintf("the stream to the upstream, opened at %s, was still open", rpc.OpenedAt)
		}
	}
	return n, open
}

// requests returns what the origin has been asked so far.
func (b *bench) requests() []request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.asked)
}

// state returns what has been audited and watched so far.
func (b *bench) state() (audits []audited, watches []watched) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.audits {
		audits = append(audits, *a)
	}
	for _, w := range b.watches {
		watches = append(watches, *w)
	}
	return audits, watches
}

// doing says what the Watches do that have not returned.
func (b *bench) doing() string {
	_, watches := b.state()
	if slices.ContainsFunc(watches, func(w watched) bool { return w.over.IsZero() }) {
		return "Watch is " + b.l.Stuck()
	}
	return "Watch has returned"
}

// isOver wants all there is of the Watches to be over soon: what has happened
// now. If codes are given, Watch has to return one of them, or Send's error.
func (b *bench) isOver(what string, want ...codes.Code) {
	b.l.Helper()
	time.Sleep(soon)
	if _, open := b.opened(); open != "" {
		doing := b.doing()
		time.Sleep(time.Hour)
		later := "an hour later it was not"
		if _, open := b.opened(); open != "" {
			later = "an hour later it still was"
		}
		b.l.Fatalf("%s, and %v later %s; %s; %s", what, soon, open, doing, later)
	}
	if audits, watches := b.state(); len(audits) < len(watches) {
		b.l.Fatalf("%s, and %v later %s, and audit has not been called", what, soon, b.doing())
	}
	time.Sleep(soon + map[bool]time.Duration{false: takes, true: bound}[b.hang])
	audits, watches := b.state()
	if len(audits) != len(watches) {
		b.l.Fatalf("%s, and audit was called %d times for %d calls of Watch", what, len(audits), len(watches))
	}
	if n, _ := b.opened(); n > len(watches) {
		b.l.Fatalf("%s, and the upstream was opened %d times for %d calls of Watch: when it is over, so is Watch", what, n, len(watches))
	}
	for _, a := range audits {
		switch {
		case a.dead != nil:
			b.l.Fatalf("%s, and audit was called with a context that had ended (%v), so that it could not write", what, a.dead)
		case a.over.IsZero():
			b.l.Fatalf("%s, audit did not come to an end, and after %v its context had not ended, which holds up Watch: %s", what, bound, b.l.Stuck())
		case a.cut:
			b.l.Fatalf("%s, and the context that audit got ended %v after the call: an audit takes up to 2s", what, a.over.Sub(a.began))
		case a.who != who:
			b.l.Fatalf("%s, and the context that audit got does not say who the client was: user and role in its metadata are %s, want %s", what, a.who, who)
		case a.topic != topic:
			b.l.Fatalf("%s, and audit was called for the topic %q, want %q", what, a.topic, topic)
		}
	}
	told, sent := 0, 0
	for i, w := range watches {
		told, sent = told+audits[i].sent, sent+w.sent
		if w.failed != nil {
			want = append(want, codeOf(w.failed))
		}
		switch {
		case w.over.IsZero():
			b.l.Fatalf("%s, audit returned, and %v later Watch still ran: %s", what, soon, b.l.Stuck())
		case len(watches) == 1 && w.over.Before(audits[i].over):
			b.l.Fatalf("%s, and Watch returned %v before audit did: a server that stops waits for Watch, and not for its goroutines", what, audits[i].over.Sub(w.over))
		case len(want) > 0 && !slices.Contains(want, codeOf(w.err)):
			b.l.Fatalf("%s, and Watch returned code %v (%v), want %v", what, codeOf(w.err), w.err, either(want))
		}
	}
	if told != sent {
		b.l.Fatalf("%s, and audit was told of %d events: %d Sends had returned nil", what, told, sent)
	}
}

func either(want []codes.Code) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(want), "[]"), " ", " or ")
}

// codeOf is what gRPC makes of an error that a handler returns.
func codeOf(err error) codes.Code {
	if st, ok := status.FromError(err); ok {
		return st.Code()
	}
	return status.FromContextError(err).Code()
}

// reads wants the client to read this end of its stream, which is here.
func (b *bench) reads(what string, stream watchClient, want codes.Code) {
	b.l.Helper()
	ev, err := stream.Recv()
	if ev != nil {
		b.l.Fatalf("%s, and the client got one more event: %s", what, lab.Text(ev))
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if status.Code(err) != want {
		b.l.Fatalf("%s, and the client read code %v (%v), want %v", what, status.Code(err), err, want)
	}
}

func TestWatchPassesOnWhatTheUpstreamSends(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		b.script = func(stream watchServer) error {
			for i := range 3 {
				if err := stream.Send(event(i, "")); err != nil {
					return err
				}
				time.Sleep(time.Minute)
			}
			return nil
		}
		stream := b.enter(l.Context(), 1)
		for i := 1; i < 3; i++ {
			time.Sleep(time.Minute - soon/2)
			b.next(stream, event(i, ""))
		}
		time.Sleep(time.Minute)
		const what = "the upstream sent three events and ended with OK"
		b.isOver(what, codes.OK)
		b.reads(what, stream, codes.OK)
		if got := b.requests()[0].topic; got != topic {
			l.Fatalf("a client watched %q, and Watch asked the upstream for %q", topic, got)
		}
	}, lab.Lasts(2*time.Hour))
}

const silence = 26 * time.Hour

func TestWatchStaysAtASilentTopic(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		b.script = func(stream watchServer) error {
			if err := stream.Send(event(0, "")); err != nil {
				return err
			}
			time.AfterFunc(silence, func() { stream.Send(event(1, "")) })
			return b.send(stream, 0, "")
		}
		stream := b.enter(l.Context(), 1)
		time.Sleep(silence - soon/2)
		if _, watches := b.state(); !watches[0].over.IsZero() {
			l.Fatalf("the topic was silent, client and upstream were there, and Watch returned code %v (%v)", codeOf(watches[0].err), watches[0].err)
		}
		b.next(stream, event(1, ""))
		b.end <- nil
		time.Sleep(time.Minute)
		stream.Recv()
	}, lab.Lasts(silence+time.Hour), lab.RealLimit(30*time.Second))
}

// leave is how a client leaves, at a silent topic and while Send waits for it.
func leave(t *testing.T, what string, how func(b *bench, cancel func())) {
	t.Helper()
	for _, where := range []string{"of a silent topic", "that had read nothing"} {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l)
			ctx, cancel := context.WithTimeout(l.Context(), 3210*time.Millisecond)
			defer cancel()
			start := time.Now()
			var stream watchClient
			if where == "of a silent topic" {
				stream = b.enter(ctx, 3)
			} else {
				b.script = func(stream watchServer) error { return b.send(stream, 300, strings.Repeat("x", 1000)) }
				stream = b.enter(ctx, 0)
			}
			time.Sleep(time.Until(start.Add(2010 * time.Millisecond)))
			how(b, cancel)
			go func() { // releases the client's side
				for {
					if _, err := stream.Recv(); err != nil {
						return
					}
				}
			}()
			time.AfterFunc(2*soon, cancel)
			b.isOver(fmt.Sprintf("the client %s %s", where, what), codes.Canceled, codes.DeadlineExceeded)
		}, lab.Lasts(2*time.Hour))
	}
}

func TestWatchEndsWhenItsClientCancels(t *testing.T) {
	leave(t, "cancelled", func(_ *bench, cancel func()) { cancel() })
}

func TestWatchEndsWhenTheDeadlinePasses(t *testing.T) {
	leave(t, "passed its deadline", func(*bench, func()) { time.Sleep(1200 * time.Millisecond) })
}

func TestWatchEndsWhenTheClientCloses(t *testing.T) {
	leave(t, "closed its connection", func(b *bench, _ func()) { b.relay.conn.Close() })
}

func TestWatchEndsWhenTheConnectionBreaks(t *testing.T) {
	leave(t, "lost its connection", func(b *bench, _ func()) { b.relay.link.Cut() })
}

func TestWatchEndsWhenTheRelayStops(t *testing.T) {
	leave(t, "was left by a relay that stopped", func(b *bench, _ func()) { b.relay.srv.Stop() })
}

// What travels with a deadline: also a network that falls silent ends it.
func TestTheDeadlineOfTheClientReachesTheUpstream(t *testing.T) {
	for _, has := range []bool{true, false} {
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l)
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			want := time.Now().Add(time.Hour)
			if has {
				ctx, cancel = context.WithDeadline(ctx, want)
				defer cancel()
			}
			b.enter(ctx, 3)
			got := b.requests()[0].deadline
			switch late := got.Sub(want); {
			case has && got.IsZero():
				l.Fatalf("the client has a deadline, and the upstream was asked without one: it would not end if the network to it fell silent")
			case has && late.Abs() > soon:
				l.Fatalf("the client has a deadline in 1h, and that of the upstream's stream is %v from it, want at most %v", late, soon)
			case !has && !got.IsZero():
				l.Fatalf("the client has no deadline, and the upstream's stream has one in %v", time.Until(got).Round(time.Second))
			}
			cancel()
			time.Sleep(time.Minute)
		})
	}
}

// ends is how the upstream ends under a client that stays, after three events.
func ends(t *testing.T, what string, want codes.Code, how func(*bench)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		stream := b.enter(l.Context(), 3)
		time.Sleep(time.Second)
		how(b)
		what := "after three events " + what
		b.isOver(what, want)
		b.reads(what, stream, want)
	}, lab.Lasts(2*time.Hour))
}

// refuses is an upstream that fails before its first event. The client has a
// deadline that is far away.
func refuses(t *testing.T, what string, want codes.Code, how func(*bench)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		how(b)
		ctx, cancel := context.WithTimeout(l.Context(), 24*time.Hour)
		defer cancel()
		stream := b.enter(ctx, 0)
		time.Sleep(4 * lab.Latency)
		what := "the client had a day left, " + what
		b.isOver(what, want)
		b.reads(what, stream, want)
	}, lab.Lasts(2*time.Hour))
}

func fails(t *testing.T, code, want codes.Code) {
	t.Helper()
	err := status.Error(code, "EOF")
	what := fmt.Sprintf("the upstream failed with %v", code)
	ends(t, what, want, func(b *bench) { b.end <- err })
	refuses(t, what, want, func(b *bench) { b.script = func(watchServer) error { return err } })
}

func TestNotFoundStaysNotFound(t *testing.T) { fails(t, codes.NotFound, codes.NotFound) }

func TestEveryOtherFailureIsUnavailable(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code != codes.NotFound {
			fails(t, code, codes.Unavailable)
		}
	}
}

func TestAnUpstreamThatIsLostIsUnavailable(t *testing.T) {
	ends(t, "the connection to the upstream broke", codes.Unavailable, func(b *bench) { b.origin.link.Cut() })
	ends(t, "the upstream was stopped", codes.Unavailable, func(b *bench) { b.origin.srv.Stop() })
	ends(t, "the relay's owner closed its connection to the upstream", codes.Unavailable, func(b *bench) { b.origin.conn.Close() })
	refuses(t, "the upstream cannot be reached", codes.Unavailable, func(b *bench) {
		b.origin.link.Cut()
		time.Sleep(time.Second)
	})
}

// A Send that fails ends the stream and not the connection.
func TestAFailedSendEndsTheUpstream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l, grpc.MaxSendMsgSize(500))
		b.script = func(stream watchServer) error {
			if err := stream.Send(event(0, "")); err != nil {
				return err
			}
			time.Sleep(time.Second)
			return b.send(stream, 1, strings.Repeat("x", 1000))
		}
		stream := b.enter(l.Context(), 1)
		time.Sleep(time.Second)
		b.isOver("the client was there, and Send failed and ended the client's context, for the event was too large")
		if _, err := stream.Recv(); err == nil {
			l.Fatalf("Send failed, for the event was too large, and the client got another event")
		}
	}, lab.Lasts(2*time.Hour))
}

// The upstream is over long before the client has read what it sent.
func TestASlowClientGetsAllAndThenTheStatus(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const n = 1000
		b := newBench(l)
		body := strings.Repeat("x", 1000)
		b.script = func(stream watchServer) error { return b.send(stream, n, body) }
		b.end <- status.Error(codes.Aborted, "so it is")
		stream := b.enter(l.Context(), 0)
		time.Sleep(10 * time.Minute)
		what := "a client read nothing for 10m, and then all that the upstream sent before it failed"
		for i := range n {
			if i == 50 { // Send goes on after the client's 50 kB, or what is queued has been dropped
				time.Sleep(soon)
				if audits, watches := b.state(); len(audits) > 0 {
					l.Fatalf("%s: after %d events audit had been called, when %d Sends had returned nil: the upstream had sent %d events", what, i, watches[0].sent, n)
				}
			}
			var ev *feedv1.Event
			var err error
			l.Call(what+", and Recv", time.Second, func() { ev, err = stream.Recv() })
			if err != nil || lab.Text(ev) != lab.Text(event(i, body)) {
				l.Fatalf("%s: after %d of %d events it got %s, %v", what, i, n, lab.Text(ev), err)
			}
		}
		b.isOver(what, codes.Unavailable)
		b.reads(what, stream, codes.Unavailable)
	}, lab.Lasts(2*time.Hour))
}

func TestAnAuditThatHangsIsBounded(t *testing.T) {
	for _, what := range []string{"the client cancelled", "the upstream ended with OK"} {
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l)
			b.hang = true
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			stream := b.enter(ctx, 3)
			if what == "the client cancelled" {
				cancel()
			} else {
				b.end <- nil
			}
			go stream.Recv()
			time.AfterFunc(bound, cancel)
			b.isOver(what)
		}, lab.Lasts(2*time.Hour))
	}
}

func TestAnAuditOutlivesTheClient(t *testing.T) {
	for _, what := range []string{"cancelled", "passed its deadline"} {
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l)
			ctx, cancel := context.WithTimeout(l.Context(), 1234*time.Millisecond)
			defer cancel()
			stream := b.enter(ctx, 3)
			b.end <- nil
			go stream.Recv()
			if what == "cancelled" {
				time.AfterFunc(time.Second, cancel)
			}
			b.isOver("the upstream ended with OK, and during the audit the client " + what)
		}, lab.Lasts(2*time.Hour))
	}
}

func TestAClientThatLeavesTakesNoneAlong(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		b.script = func(stream watchServer) error {
			for i := 0; ; i++ {
				if err := stream.Send(event(i, "")); err != nil {
					return err
				}
				select {
				case <-time.After(time.Minute):
				case <-stream.Context().Done():
					return stream.Context().Err()
				}
			}
		}
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		for i := range 100 {
			ctx, leave := context.WithCancel(ctx)
			stream := b.enter(ctx, 1)
			if i%2 == 0 {
				leave()
			}
			defer leave()
			go func() {
				for {
					if _, err := stream.Recv(); err != nil {
						return
					}
				}
			}()
		}
		stays := b.enter(ctx, 1)
		time.Sleep(time.Minute - soon/2)
		b.next(stays, event(1, ""))
		if audits, watches := b.state(); len(audits) != 50 || len(watches) != 101 {
			l.Fatalf("101 clients came, 50 of them left, and a minute later audit had been called %d times, want 50", len(audits))
		}
		cancel()
		b.isOver("the other 51 clients cancelled")
	}, lab.Lasts(2*time.Hour))
}
