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

// What README.md allows.
const (
	mostHeld = 16          // events that were taken and that Send has not taken over
	soon     = time.Second // for an event, and for an end
	day      = 24 * time.Hour
)

// numbered makes n events with bodies of size bytes. The first two are equal,
// which is no reason to send one of them.
func numbered(n, size int) []*feedv1.Event {
	var events []*feedv1.Event
	for i := range n {
		events = append(events, &feedv1.Event{Id: strconv.Itoa(max(i, 1)), Topic: "alerts", Body: strings.Repeat("x", size)})
	}
	return events
}

// A bench is the source of one stream, and counts what the answer takes from
// it and what Send takes over from the answer.
type bench struct {
	who    string // "Watch", "uploadFrom"
	events []*feedv1.Event
	pause  time.Duration // before each event but the first
	end    error         // of a topic; nil if it falls silent

	mu    sync.Mutex
	busy  bool // a call waits for an event
	taken int
	sent  int    // what Send has taken over
	wrong string // what is wrong with how the source was used; the first thing
}

// ask begins a call of Next, or of next, for the event with the index i; give
// ends it.
func (b *bench) ask() (i int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy && b.wrong == "" {
		b.wrong = b.who + " asked its source for an event while it waited for another one"
	}
	b.busy = true
	return b.taken
}

func (b *bench) give(one bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.busy = false; one {
		b.taken++
	}
}

// Next is what Watch calls.
func (b *bench) Next(ctx context.Context) (ev *feedv1.Event, err error) {
	i := b.ask()
	defer func() { b.give(err == nil) }()
	pause := b.pause
	switch last := len(b.events); {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case i >= last && b.end != nil:
		return nil, b.end
	case i >= last:
		<-ctx.Done()
		return nil, ctx.Err()
	case i > 0 && pause > 0:
		wait(ctx, pause)
	}
	return b.events[i], ctx.Err()
}

// next is what uploadFrom calls.
func (b *bench) next() (*feedv1.Event, bool) {
	i := b.ask()
	ok := i < len(b.events)
	defer b.give(ok)
	if !ok {
		return nil, false
	}
	return b.events[i], true
}

// misuse says what is wrong with how the answer has used its source so far, at
// a moment when nothing moves.
func (b *bench) misuse() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.taken - b.sent; b.wrong == "" && n > mostHeld {
		return fmt.Sprintf("%s had taken %d events from its source, and Send had taken over %d of them: "+
			"it held %d in between, or had dropped them, want at most %d", b.who, b.taken, b.sent, n, mostHeld)
	}
	return b.wrong
}

func (b *bench) wantNoMisuse(l *lab.Lab) {
	l.Helper()
	if what := b.misuse(); what != "" {
		l.Fatal(what)
	}
}

// count counts a message that Send has taken over.
func (b *bench) count(err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.sent++
	}
	return err
}

type countedServer struct {
	grpc.ServerStream
	b *bench
}

func (s countedServer) SendMsg(m any) error { return s.b.count(s.ServerStream.SendMsg(m)) }

type countedClient struct {
	grpc.ClientStream
	b *bench
}

func (s countedClient) SendMsg(m any) error { return s.b.count(s.ClientStream.SendMsg(m)) }

// A call is one stream of the answer in the lab.
type call struct {
	*lab.Lab
	b      *bench
	link   *lab.Link
	srv    *grpc.Server
	conn   *grpc.ClientConn
	client feedv1.FeedServiceClient
}

func connect(l *lab.Lab, b *bench, svc feedv1.FeedServiceServer) *call {
	l.Helper()
	c := &call{Lab: l, b: b, link: l.NewLink()}
	c.srv = c.link.Serve(svc, grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if info.IsClientStream {
			return next(srv, stream)
		}
		return next(srv, countedServer{stream, b})
	}))
	c.conn = c.link.Dial(grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn,
		method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		stream, err := open(ctx, desc, conn, method, opts...)
		if err != nil || desc.ServerStreams {
			return stream, err
		}
		return countedClient{stream, b}, nil
	}))
	c.client = feedv1.NewFeedServiceClient(c.conn)
	return c
}

// A watched is a Watch with the client in the test's hands.
type watched struct {
	*call
	stream grpc.ServerStreamingClient[feedv1.Event]
	cancel func()
	got    int           // events
	read   time.Duration // when it began to read
}

// watching runs body with a stream of Watch, whose deadline is far unless the
// test sets one.
func watching(t *testing.T, b *bench, deadline time.Duration, body func(*watched)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b.who = "Watch"
		w := &watched{call: connect(l, b, &server{open: func(string) source { return b }})}
		ctx, cancel := context.WithTimeout(l.Context(), deadline)
		defer cancel()
		w.cancel = cancel
		stream, err := w.client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
		if err != nil {
			l.Fatal(err)
		}
		w.stream = stream
		body(w)
	}, lab.Lasts(3*day))
}

// wantEvents reads n events, each within limit.
func (w *watched) wantEvents(n int, limit time.Duration) {
	w.Helper()
	if w.got == 0 {
		w.read = w.Elapsed().Round(time.Second)
	}
	for range n {
		var ev *feedv1.Event
		var err error
		w.Call(fmt.Sprintf("after %d events the client's Recv", w.got), limit, func() { ev, err = w.stream.Recv() })
		want := w.b.events[w.got]
		switch {
		case errors.Is(err, io.EOF):
			w.Fatalf("the client began to read after %v, got %d events and then io.EOF, and its topic had %d before its end", w.read, w.got, len(w.b.events))
		case err != nil:
			w.Fatalf("the client began to read after %v, got %d events and then code %v (%v), and its topic had %d", w.read, w.got, status.Code(err), err, len(w.b.events))
		case lab.Text(ev) != lab.Text(want):
			w.b.wantNoMisuse(w.Lab) // may be why
			w.Fatalf("event %d that the client got is %s, want %s", w.got+1, lab.Text(ev), lab.Text(want))
		}
		w.got++
	}
}

// wantEnd reads how the stream ends.
func (w *watched) wantEnd() {
	w.Helper()
	var ev *feedv1.Event
	var err error
	w.Call("after the topic's last event the client's Recv", soon, func() { ev, err = w.stream.Recv() })
	want, ok := status.FromError(w.b.end)
	switch {
	case err == nil:
		w.Fatalf("after the topic's last event the client got %s", lab.Text(ev))
	case errors.Is(w.b.end, io.EOF) && !errors.Is(err, io.EOF):
		w.Fatalf("the topic was complete, and the client got code %v (%v), want io.EOF", status.Code(err), err)
	case ok && (status.Code(err) != want.Code() || !strings.Contains(err.Error(), want.Message())):
		w.Fatalf("the topic ended with %q, and the client got %q", w.b.end, err)
	}
}

// wantGone checks that nothing of the stream is left within a second. The test
// has let go of it.
func (w *watched) wantGone(what string) {
	w.Helper()
	w.cancel()
	if leaks := w.Leaks(); len(leaks) > 0 {
		w.Fatalf("%s, and a second later %s", what, strings.Join(leaks, "\n"))
	}
	w.b.wantNoMisuse(w.Lab)
}

func TestWatchSendsATopicInOrder(t *testing.T) {
	watching(t, &bench{events: numbered(1000, 100), end: io.EOF}, day, func(w *watched) {
		start := time.Now()
		w.wantEvents(1000, 10*time.Second)
		w.wantEnd()
		if took := time.Since(start); took > soon {
			w.Fatalf("a topic had 1000 events, its client read as fast as it could, and had them all after %v, want at most %v", took, soon)
		}
		w.wantGone("the topic was complete")
	})
}

func TestWatchTakesNoMoreThanSend(t *testing.T) {
	watching(t, &bench{events: numbered(300, 1024), end: io.EOF}, 2*day, func(w *watched) {
		time.Sleep(10 * time.Second)
		w.b.wantNoMisuse(w.Lab)
		time.Sleep(day)
		w.wantEvents(300, soon) // and not one is missing
		w.wantEnd()
		w.wantGone("the topic was complete")
	})
}

func TestWatchSendsEventsAsTheyCome(t *testing.T) {
	const pause = 3 * time.Hour
	watching(t, &bench{events: numbered(20, 100), pause: pause}, 3*day, func(w *watched) {
		w.wantEvents(1, soon)
		for range 19 {
			w.wantEvents(1, pause+soon)
			if late := w.Elapsed() % pause; late > soon {
				w.Fatalf("event %d came %v after its source had it, want at most %v", w.got, late, soon)
			}
		}
		w.wantGone("the client cancelled")
	})
}

func TestWatchKeepsToThePaceOfItsClient(t *testing.T) {
	watching(t, &bench{events: numbered(400, 1024), end: io.EOF}, day, func(w *watched) {
		for range 200 {
			w.wantEvents(1, soon)
			time.Sleep(20 * time.Millisecond)
			w.b.wantNoMisuse(w.Lab)
		}
		w.wantEvents(200, soon)
		w.wantEnd()
		w.wantGone("the topic was complete")
	})
}

func TestWatchEndsAsItsTopicEnds(t *testing.T) {
	for _, end := range []error{
		status.Error(codes.Unavailable, "the topic moved"), status.Error(codes.DataLoss, "EOF"),
		status.Error(codes.Canceled, "the topic was withdrawn"), io.EOF, // the client is there
	} {
		for _, n := range []int{300, 134, 3, 0} { // of 134, seven wait behind what Send takes
			watching(t, &bench{events: numbered(n, 1024), end: end}, day, func(w *watched) {
				time.Sleep(5 * time.Second) // all that Send takes waits for the client
				w.wantEvents(n, soon)
				w.wantEnd()
				w.wantGone("the topic had ended")
			})
		}
	}
}

func TestWatchEndsWithItsClient(t *testing.T) {
	const after = 2300 * time.Millisecond
	for _, state := range []struct {
		what   string
		events []*feedv1.Event
		reads  int
	}{
		{"while Send waited for it", numbered(300, 1024), 0},
		{"while its topic was silent", numbered(3, 100), 3},
	} {
		for _, end := range []struct {
			what string
			how  func(*watched)
		}{
			{"the client cancelled", func(w *watched) { w.cancel() }},
			{"the client's deadline passed", nil},
			{"the client closed its connection", func(w *watched) { w.conn.Close() }},
			{"the connection broke", func(w *watched) { w.link.Cut() }},
			{"the server was stopped", func(w *watched) { w.srv.Stop() }},
		} {
			deadline := day
			if end.how == nil {
				deadline = after
			}
			watching(t, &bench{events: state.events}, deadline, func(w *watched) {
				w.wantEvents(state.reads, soon)
				time.Sleep(after - w.Elapsed()%after)
				if end.how != nil {
					end.how(w)
				}
				w.wantGone(end.what + " " + state.what)
			})
		}
	}
}

// A peer takes an upload by a script, and remembers what it received.
type peer struct {
	feedv1.UnimplementedFeedServiceServer
	script func(*peer, grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error

	mu       sync.Mutex
	received []string // the events' text
	closed   bool     // the client has half-closed
	ended    time.Time
}

func (p *peer) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	err := p.script(p, stream)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = time.Now()
	return err
}

// read reads up to n events, or to the half-close.
func (p *peer) read(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult], n int) error {
	for range n {
		ev, err := stream.Recv()
		p.mu.Lock()
		if p.closed = errors.Is(err, io.EOF); err == nil {
			p.received = append(p.received, lab.Text(ev))
		}
		p.mu.Unlock()
		if p.closed {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stored is what the servers here say they have stored of any upload.
const stored = 4711

// takes is a script: wait, read up to n events, wait again, and end.
func takes(before time.Duration, n int, after time.Duration, end error) func(*peer, grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	return func(p *peer, stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
		if err := pause(stream.Context(), before); err != nil {
			return err
		}
		if err := p.read(stream, n); err != nil {
			return err
		}
		if err := pause(stream.Context(), after); err != nil {
			return err
		}
		if end != nil {
			return end
		}
		return stream.SendAndClose(&feedv1.UploadResult{Received: stored})
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if d > 0 {
		wait(ctx, d)
	}
	return ctx.Err()
}

// An upload is one call of uploadFrom, and what came of it.
type upload struct {
	*call
	p     *peer
	n     int32
	err   error
	began time.Time
	took  time.Duration
}

// uploading runs uploadFrom against a script, with a deadline. First comes
// what happens meanwhile, or nil, and then what is wanted.
func uploading(t *testing.T, p *peer, events []*feedv1.Event, deadline time.Duration, during func(*call, func()), then func(*upload)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{who: "uploadFrom", events: events}
		u := &upload{call: connect(l, b, p), p: p}
		ctx, cancel := context.WithTimeout(l.Context(), deadline)
		defer cancel()
		if during != nil {
			during(u.call, cancel)
		}
		u.began = time.Now()
		l.Call("uploadFrom", deadline+time.Minute, func() { u.n, u.err = uploadFrom(ctx, u.client, b.next) })
		u.took = time.Since(u.began)
		if n := len(l.RPCs()); n > 1 {
			l.Fatalf("uploadFrom opened %d streams, want one", n)
		}
		then(u)
		cancel()
		if leaks := l.Leaks(); len(leaks) > 0 {
			l.Fatalf("uploadFrom has returned, and a second later %s", strings.Join(leaks, "\n"))
		}
		b.wantNoMisuse(l)
	}, lab.Lasts(3*day))
}

// wantAll checks an upload that the server has read to its half-close.
func (u *upload) wantAll() {
	u.Helper()
	var want []string
	for _, ev := range u.b.events {
		want = append(want, lab.Text(ev))
	}
	u.p.mu.Lock()
	defer u.p.mu.Unlock()
	switch {
	case u.err != nil:
		u.Fatalf("the server read to the half-close and ended with OK, and uploadFrom returned after %v with the error %q", u.took.Round(time.Millisecond), u.err)
	case !u.p.closed:
		u.Fatalf("uploadFrom returned before it had half-closed the stream: the server had read %d of %d events", len(u.p.received), len(want))
	case !slices.Equal(u.p.received, want):
		u.Fatalf("the source had %d events, and the server received %d%s", len(want), len(u.p.received), firstDifference(u.p.received, want))
	case u.n != stored:
		u.Fatalf("the server counted %d events, and uploadFrom returned %d", stored, u.n)
	}
}

func firstDifference(got, want []string) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("; number %d is %s, want %s", i+1, got[i], want[i])
		}
	}
	return ""
}

// wantError checks the code of uploadFrom's error. A context's own error is as
// good as the status that gRPC makes of it.
func (u *upload) wantError(what string, want codes.Code) {
	u.Helper()
	got := status.Code(u.err)
	switch {
	case errors.Is(u.err, context.Canceled):
		got = codes.Canceled
	case errors.Is(u.err, context.DeadlineExceeded):
		got = codes.DeadlineExceeded
	}
	switch {
	case u.err == nil:
		u.Fatalf("%s, and uploadFrom returned %d and no error, want code %v", what, u.n, want)
	case got != want:
		u.Fatalf("%s, and uploadFrom returned code %v (%v), want %v", what, got, u.err, want)
	}
}

// wantSoon checks that uploadFrom returned a second after what at the latest.
func (u *upload) wantSoon(what string, since time.Time) {
	u.Helper()
	if late := u.began.Add(u.took).Sub(since); late > soon {
		u.Fatalf("%s, and uploadFrom returned %v later, want at most %v", what, late, soon)
	}
}

func TestUploadSendsEveryEventInOrder(t *testing.T) {
	for _, n := range []int{1000, 1, 0} {
		uploading(t, &peer{script: takes(0, 9999, 0, nil)}, numbered(n, 100), time.Minute, nil, func(u *upload) {
			u.wantAll()
			u.wantSoon(fmt.Sprintf("the server read %d events as they came", n), u.began)
		})
	}
}

func TestUploadTakesNoMoreThanSend(t *testing.T) {
	uploading(t, &peer{script: takes(day, 9999, 0, nil)}, numbered(300, 1024), 2*day, func(c *call, _ func()) {
		time.AfterFunc(10*time.Second, func() {
			if what := c.b.misuse(); what != "" {
				c.Error(what)
			}
		})
	}, (*upload).wantAll)
}

func TestUploadWaitsForTheCount(t *testing.T) {
	uploading(t, &peer{script: takes(0, 9999, day, nil)}, numbered(300, 1024), 2*day, nil, (*upload).wantAll)
}

func TestUploadEndsAsTheServerEnds(t *testing.T) {
	for _, tt := range []struct {
		what          string
		before, after time.Duration
		reads         int
	}{
		{"when it had read 3 events", 0, 0, 3},
		{"when it had read nothing for 5s", 5 * time.Second, 0, 0},
		{"when it had read everything", 0, time.Hour, 9999},
	} {
		for _, end := range []error{nil, status.Error(codes.InvalidArgument, "too many"), status.Error(codes.ResourceExhausted, "EOF")} {
			p := &peer{script: takes(tt.before, tt.reads, tt.after, end)}
			uploading(t, p, numbered(300, 1024), 2*time.Hour, nil, func(u *upload) {
				what := fmt.Sprintf("the server ended with code %v %s", status.Code(end), tt.what)
				switch {
				case end != nil:
					u.wantError(what, status.Code(end))
				case u.err != nil:
					u.Fatalf("%s, and uploadFrom returned the error %q", what, u.err)
				case u.n != stored:
					u.Fatalf("%s and counted %d events, and uploadFrom returned %d", what, stored, u.n)
				}
				p.mu.Lock()
				defer p.mu.Unlock()
				if p.ended.IsZero() {
					u.Fatalf("uploadFrom returned before the server had ended the stream")
				}
				u.wantSoon(what, p.ended)
			})
		}
	}
}

// states are the two waits of uploadFrom: in Send, and for the count.
var states = []struct {
	what  string
	reads int
}{
	{"while Send waited for the server", 0},
	{"while the server had read everything and not ended", 9999},
}

func TestUploadEndsWithItsContext(t *testing.T) {
	const after = 3300 * time.Millisecond
	for _, state := range states {
		p := &peer{script: takes(0, state.reads, 2*day, nil)}
		uploading(t, p, numbered(300, 1024), day, func(_ *call, cancel func()) {
			time.AfterFunc(after, cancel)
		}, func(u *upload) {
			what := "the caller cancelled " + state.what
			u.wantError(what, codes.Canceled)
			u.wantSoon(what, u.began.Add(after))
		})
		uploading(t, p, numbered(300, 1024), after, nil, func(u *upload) {
			what := "the caller's deadline passed " + state.what
			u.wantError(what, codes.DeadlineExceeded)
			u.wantSoon(what, u.began.Add(after))
		})
	}
}

func TestUploadEndsWithTheConnection(t *testing.T) {
	const after = 3300 * time.Millisecond
	for _, state := range states {
		for _, end := range []struct {
			what string
			how  func(*call)
		}{
			{"the connection broke ", func(c *call) { c.link.Cut() }},
			{"the server was stopped ", func(c *call) { c.srv.Stop() }},
		} {
			uploading(t, &peer{script: takes(0, state.reads, 2*day, nil)}, numbered(300, 1024), day, func(c *call, _ func()) {
				time.AfterFunc(after, func() { end.how(c) })
			}, func(u *upload) {
				u.wantError(end.what+state.what, codes.Unavailable)
				u.wantSoon(end.what+state.what, u.began.Add(after))
			})
		}
	}
}

func TestUploadSaysThatThereIsNoServer(t *testing.T) {
	uploading(t, &peer{}, numbered(300, 1024), time.Minute, func(c *call, _ func()) {
		c.link.Cut()
		time.Sleep(time.Second) // the client has noticed
	}, func(u *upload) {
		u.wantError("there was no server", codes.Unavailable)
		u.wantSoon("there was no server", u.began)
	})
}
