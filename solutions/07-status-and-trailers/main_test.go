package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// What README.md allows: a second, and a little, because an answer may take
// all of it and the network takes its time.
const second = 1100 * time.Millisecond

// each runs one of several cases. The first that fails says what is wrong.
func each(t *testing.T, body func(*lab.Lab), opts ...lab.Option) {
	t.Helper()
	if !t.Failed() {
		lab.Run(t, body, opts...)
	}
}

// codeOf is what gRPC makes of an error that a handler returns, and what a
// caller finds in an error that watch returns.
func codeOf(err error) codes.Code {
	if st, ok := status.FromError(err); ok {
		return st.Code()
	}
	return status.FromContextError(err).Code()
}

// ids counts down, so that the last one is neither the number of events nor
// the largest.
func ids(n int) []string {
	all := []string{}
	for i := range n {
		all = append(all, fmt.Sprint(9000-i))
	}
	return all
}

// The handler, called by a client that makes no mistakes.

// bench is a source whose topics have n events, 20 ms apart, and then fail
// with the error that end returns.
type bench struct {
	l      *lab.Lab
	refuse func(context.Context) error // how Open fails; nil if it does not
	n      int
	end    func(context.Context) error
	pause  time.Duration // before each event, 20 ms if not set
	body   string
	asked  chan string                     // the topics of the calls of Open
	told   atomic.Pointer[context.Context] // that of the last call of Open or Next
}

func (b *bench) Open(ctx context.Context, topic string) (reader, error) {
	b.asked <- topic
	b.told.Store(&ctx)
	if b.refuse != nil {
		if err := b.refuse(ctx); err != nil {
			return nil, err
		}
	}
	return &benchReader{bench: b, topic: topic, opened: ctx}, nil
}

type benchReader struct {
	*bench
	topic  string
	opened context.Context // the reader lives as long
	sent   int
	failed bool
}

func (r *benchReader) Next(ctx context.Context) (ev *feedv1.Event, err error) {
	if r.failed {
		r.l.Errorf("Next has returned an error, and Watch called it again")
	}
	defer func() { r.failed = err != nil }()
	r.told.Store(&ctx)
	if r.pause >= 0 {
		select {
		case <-time.After(max(r.pause, 20*time.Millisecond)):
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-r.opened.Done():
			time.Sleep(time.Millisecond) // a client that leaves ends both
			if ctx.Err() == nil {
				r.l.Errorf("Watch still reads, and the context that it gave to Open has ended, and with it the reader")
			}
			return nil, r.opened.Err()
		}
	}
	if r.sent == r.n {
		return nil, r.end(ctx)
	}
	r.sent++
	return &feedv1.Event{Id: ids(r.sent)[r.sent-1], Topic: r.topic, Body: r.body}, nil
}

func waitFor(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func with(err error) func(context.Context) error {
	return func(context.Context) error { return err }
}

// watched tells the test how the handler ends.
type watched struct {
	*server
	ended chan error
}

func (w *watched) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	err := w.server.Watch(req, stream)
	w.ended <- err
	return err
}

// serve serves the handler over the source.
func serve(l *lab.Lab, b *bench) *watched {
	b.l, b.asked = l, make(chan string, 10)
	return &watched{server: &server{source: b}, ended: make(chan error, 10)}
}

// An outcome is what a client gets of a stream.
type outcome struct {
	header, trailer metadata.MD
	ids             []string
	err             error // nil for OK
}

// openWatch opens a stream as a client that makes no mistakes.
func openWatch(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient) grpc.ServerStreamingClient[feedv1.Event] {
	l.Helper()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		l.Fatal(err)
	}
	return stream
}

// drain reads a stream to its end. what says what the source does.
func drain(l *lab.Lab, what string, limit time.Duration, stream grpc.ServerStreamingClient[feedv1.Event]) outcome {
	l.Helper()
	got := outcome{ids: []string{}}
	l.Call(what+", and Watch", limit, func() {
		for {
			ev, err := stream.Recv()
			if err != nil {
				got.header, _ = stream.Header()
				got.trailer = stream.Trailer()
				if !errors.Is(err, io.EOF) {
					got.err = err
				}
				return
			}
			got.ids = append(got.ids, ev.GetId())
		}
	})
	if l.Failed() { // the source has said why
		l.FailNow()
	}
	return got
}

// take reads a topic of the source to its end.
func take(l *lab.Lab, what string, b *bench) outcome {
	l.Helper()
	client, _ := l.Connect(serve(l, b))
	got := drain(l, what, time.Minute, openWatch(l.Context(), l, client))
	if n := len(b.asked); n != 1 {
		l.Fatalf("%s, and Watch called Open %d times, want once: whether to try again is up to the client", what, n)
	}
	return got
}

func (o outcome) ending() string {
	if o.err == nil {
		return "code OK"
	}
	return fmt.Sprintf("code %v (%s)", status.Code(o.err), status.Convert(o.err).Message())
}

func TestWatchSendsTheEventsAndEndsWell(t *testing.T) {
	for _, tt := range []struct {
		n   int
		end error
	}{{3, io.EOF}, {3, fmt.Errorf("read: %w", io.EOF)}, {0, io.EOF}, {1000, io.EOF}} {
		each(t, func(l *lab.Lab) {
			b := &bench{n: tt.n, end: with(tt.end)}
			what := fmt.Sprintf("the topic is complete after %d events, which Next says by %q", tt.n, tt.end)
			got := take(l, what, b)
			if !slices.Equal(got.ids, ids(tt.n)) {
				l.Fatalf("%s, and Watch sent %d, want all of them, once and in order: the first are %.30q", what, len(got.ids), got.ids)
			}
			if got.err != nil {
				l.Fatalf("%s, and Watch ended with %s, want code OK", what, got.ending())
			}
			if topic := <-b.asked; topic != "alerts" {
				l.Fatalf("the client watches the topic \"alerts\", and Watch opened %q", topic)
			}
		})
	}
}

// A topic that is silent for two days, and a client that wants to know
// whether it is open.
func TestWatchSendsItsHeaderBeforeTheFirstEvent(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const days = 48 * time.Hour
		client, _ := l.Connect(serve(l, &bench{n: 1, pause: days, end: with(io.EOF)}))
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream := openWatch(ctx, l, client)
		timer := time.AfterFunc(second, cancel)
		header, _ := stream.Header()
		if !timer.Stop() {
			l.Fatalf("Watch has opened a topic that is silent, and a second later the client has no header, want watching yes")
		}
		if got := header.Get("watching"); !slices.Equal(got, []string{"yes"}) {
			l.Fatalf("Watch has opened a topic, and the client gets the header watching %q, want [\"yes\"]", got)
		}
		var err error
		l.Call("after two days of silence the client's Recv of Watch", days+second, func() { _, err = stream.Recv() })
		if err != nil && !l.Failed() { // else the source has said why
			l.Fatalf("the topic was silent for two days, and Watch ended with code %v (%v), want the event that came then", status.Code(err), err)
		}
		drain(l, "two days after its only event the topic is complete", days+second, stream)
	}, lab.Lasts(120*time.Hour))
}

// failed checks the end of a topic that failed with each of the errors, in
// Open or in Next, against the code that the client should read.
func failed(t *testing.T, want codes.Code, why string, all ...error) {
	t.Helper()
	for _, err := range all {
		for _, where := range []string{"Open", "Next"} {
			if where == "Next" && err == io.EOF {
				continue // the good end
			}
			each(t, func(l *lab.Lab) {
				b := &bench{n: 2, end: with(err)}
				if where == "Open" {
					b.refuse = with(err)
				}
				what := fmt.Sprintf("%s failed with %q", where, err)
				got := take(l, what, b)
				if status.Code(got.err) != want {
					l.Fatalf("%s, and Watch ended with %s, want code %v: %s", what, got.ending(), want, why)
				}
				if where == "Next" && len(got.ids) != 2 {
					l.Fatalf("%s after 2 events, and Watch sent %d", what, len(got.ids))
				}
				if values := got.header.Get("watching"); where == "Open" && len(values) > 0 {
					l.Fatalf("%s, and Watch sent the header watching %q, want none: it says that the topic is open", what, values)
				}
				wantSecret(l, what, want, got)
			})
		}
	}
}

// wantSecret checks that a client reads nothing of what a source said.
func wantSecret(l *lab.Lab, what string, want codes.Code, got outcome) {
	l.Helper()
	if want == codes.NotFound {
		return // the text is up to the answer
	}
	st := status.Convert(got.err)
	for _, part := range []struct{ where, text string }{
		{"text", st.Message()},
		{"details", fmt.Sprint(st.Details())},
		{"header", fmt.Sprint(map[string][]string(got.header))},
		{"trailer", fmt.Sprint(map[string][]string(got.trailer))},
	} {
		if strings.Contains(part.text, "shard-9") {
			l.Fatalf("%s, and Watch passed its words on: the client reads %q in the %s of the answer", what, "shard-9", part.where)
		}
	}
}

// detailed is a status whose details tell the client what it should not know.
func detailed(code codes.Code) error {
	st, err := status.New(code, "no such topic on shard-9").WithDetails(&feedv1.WatchRequest{Topic: "shard-9"})
	if err != nil {
		return err
	}
	return st.Err()
}

func TestWatchSaysThatThereIsNoTopic(t *testing.T) {
	failed(t, codes.NotFound, "it is errNoTopic", errNoTopic, fmt.Errorf("shard-9: lookup: %w", errNoTopic),
		errors.Join(errors.New("shard-9: lookup"), errNoTopic))
}

func TestWatchSaysThatItsUpstreamIsUnavailable(t *testing.T) {
	drains := detailed(codes.Unavailable)
	failed(t, codes.Unavailable, "it is an upstream's Unavailable", drains, fmt.Errorf("read: %w", drains))
}

func TestWatchTakesTheBlameForAllElse(t *testing.T) {
	all := []error{
		status.Error(codes.PermissionDenied, "relay-7 may not read shard-9"),
		errors.New("shard-9: checksum mismatch"),
		fmt.Errorf("shard-9: %w", io.ErrUnexpectedEOF),
		fmt.Errorf("query shard-9: %w", context.DeadlineExceeded), // a time limit of the source's own
		fmt.Errorf("query shard-9: %w", context.Canceled),
		io.EOF, // of Open, where nothing is complete
		errors.New("shard-9 is not Unavailable: no such topic"), // what the text says is no code
	}
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		if c != codes.Unavailable {
			st := detailed(c)
			all = append(all, st, fmt.Errorf("read: %w", st))
		}
	}
	failed(t, codes.Internal, "it is neither errNoTopic nor a status with the code Unavailable, and the client has not left", all...)
}

func TestWatchTellsTheLastCursorWithEveryStatus(t *testing.T) {
	for _, tt := range []struct {
		n    int
		end  error
		what string
	}{
		{3, io.EOF, "is complete"},
		{3, errNoTopic, "is deleted"},
		{3, status.Error(codes.Unavailable, "shard-9 drains"), "fails with an Unavailable"},
		{3, errors.New("shard-9: checksum mismatch"), "fails"},
		{1, io.EOF, "is complete"},
		{0, io.EOF, "is complete"},
	} {
		each(t, func(l *lab.Lab) {
			what := fmt.Sprintf("the topic %s after %d events", tt.what, tt.n)
			got := take(l, what, &bench{n: tt.n, end: with(tt.end)}).trailer.Get("last-cursor")
			want := slices.Concat([]string{""}, ids(tt.n))[tt.n:]
			if (tt.n > 0 || len(got) > 0) && !slices.Equal(got, want) {
				l.Fatalf("%s, and in the trailer of Watch last-cursor has the values %q, want %q", what, got, want)
			}
		})
	}
}

func TestEachStreamHasItsOwnCursor(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const what = "two clients read a topic of 3 events, one 50ms after the other"
		client, _ := l.Connect(serve(l, &bench{n: 3, end: with(io.EOF)}))
		first := openWatch(l.Context(), l, client)
		time.Sleep(50 * time.Millisecond)
		second := openWatch(l.Context(), l, client)
		for _, stream := range []grpc.ServerStreamingClient[feedv1.Event]{first, second} {
			if got := drain(l, what, time.Minute, stream).trailer.Get("last-cursor"); !slices.Equal(got, ids(3)[2:]) {
				l.Fatalf("%s, and in the trailer of Watch last-cursor has the values %q, want %q", what, got, ids(3)[2:])
			}
		}
	})
}

// untilGone waits for its context and then fails as the form says.
func untilGone(form string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		switch form {
		case "a status with its code":
			return status.FromContextError(ctx.Err()).Err()
		case "Unavailable":
			return status.Error(codes.Unavailable, "shard-9 drains")
		case "PermissionDenied":
			return status.Error(codes.PermissionDenied, "relay-7 may not read shard-9")
		}
		return fmt.Errorf("wait: %w", ctx.Err())
	}
}

// What a handler returns to nobody, interceptors and metrics see.
func TestAClientThatLeavesIsNoFailure(t *testing.T) {
	for _, how := range []string{"cancelled", "has passed its deadline", "closed its connection", "was cut off", "was left by a server that stops"} {
		for _, form := range []string{"its context's error", "a status with its code", "Unavailable", "PermissionDenied"} {
			for _, where := range []string{"Next", "Open"} {
				each(t, func(l *lab.Lab) {
					b := &bench{n: 2, end: untilGone(form)}
					if where == "Open" {
						b.refuse = untilGone(form)
					}
					w := serve(l, b)
					link := l.NewLink()
					srv := link.Serve(w)
					conn := link.Dial()
					ctx, cancel := context.WithCancel(l.Context())
					defer cancel()
					if how == "has passed its deadline" {
						ctx, cancel = context.WithTimeout(ctx, 2300*time.Millisecond)
						defer cancel()
					}
					stream := openWatch(ctx, l, feedv1.NewFeedServiceClient(conn))
					time.Sleep(2300 * time.Millisecond)
					switch how {
					case "cancelled":
						cancel()
					case "closed its connection":
						conn.Close()
					case "was cut off":
						link.Cut()
					case "was left by a server that stops":
						srv.Stop()
					}
					for {
						if _, err := stream.Recv(); err != nil {
							break
						}
					}
					what := fmt.Sprintf("the client %s while %s waited", how, where)
					wantGone(l, w, what, fmt.Sprintf("%s, which failed with %s, and Watch", what, form))
				})
			}
		}
	}
}

// wantGone waits for the end of the handler.
func wantGone(l *lab.Lab, w *watched, what, why string) {
	l.Helper()
	select {
	case err := <-w.ended:
		if c := codeOf(err); c != codes.Canceled && c != codes.DeadlineExceeded {
			l.Fatalf("%s returned code %v (%v), want Canceled or DeadlineExceeded: nobody has failed, and nothing was completed", why, c, err)
		}
	case <-time.After(second):
		why := ""
		if ctx := w.source.(*bench).told.Load(); ctx != nil && (*ctx).Err() == nil {
			why = ", and the source was not told: it did not get the stream's context"
		}
		if !l.Failed() { // it may have panicked, and that is said
			l.Errorf("%s, and a second later Watch still runs%s:\n%s", what, why, l.Stuck())
		}
		l.FailNow()
	}
}

func TestAClientThatLeavesWhileSendWaitsIsNoFailure(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		w := serve(l, &bench{n: 1000, pause: -1, body: strings.Repeat("x", 1000), end: with(io.EOF)})
		client, _ := l.Connect(w)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		openWatch(ctx, l, client)
		time.Sleep(2300 * time.Millisecond)
		cancel()
		const what = "a client that reads nothing left while Send waited"
		wantGone(l, w, what, what+", and Watch")
	})
}

// The client, against servers that make no mistakes.

// script is a server whose Watch is a function.
type script struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(topic string, stream watchServer) error
}

func (s script) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	return s.watch(req.GetTopic(), stream)
}

// sends is a server that sends n events and ends a while after the last one.
// Its cursor is not that of its last event, and its header is no trailer.
func sends(n int, trailer metadata.MD, wait time.Duration, end error) script {
	return script{watch: func(_ string, stream watchServer) error {
		if n > 0 {
			stream.SetHeader(metadata.Pairs("last-cursor", "the header's"))
		}
		for _, id := range ids(n) {
			if err := stream.Send(&feedv1.Event{Id: id}); err != nil {
				return err
			}
		}
		if err := waitFor(stream.Context(), wait); err != nil {
			return err
		}
		stream.SetTrailer(trailer)
		return end
	}}
}

// cursor is the trailer that most of the servers have.
func cursor() metadata.MD { return metadata.Pairs("last-cursor", "4711") }

// asked is a connection for one call of watch. It notes the mistakes that do
// not show in what watch returns.
type asked struct {
	*grpc.ClientConn
	calls atomic.Int32
	again func()      // on the second call
	early atomic.Bool // a stream was asked for its trailer before the end
}

func (a *asked) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if n := a.calls.Add(1); n > 1 {
		if n == 2 {
			a.again()
		}
		return nil, status.Error(codes.FailedPrecondition, "this was not the first call")
	}
	stream, err := a.ClientConn.NewStream(ctx, desc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &punctual{ClientStream: stream, asked: a}, nil
}

// punctual is a stream whose trailer is there when it must be, with the error
// of Recv. On a real one it may be there as soon as its frame is, and to look
// for it is a data race.
type punctual struct {
	grpc.ClientStream
	asked *asked
	ended atomic.Bool
}

func (s *punctual) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		s.ended.Store(true)
	}
	return err
}

func (s *punctual) Trailer() metadata.MD {
	if !s.ended.Load() {
		s.asked.early.Store(true)
		return nil
	}
	return s.ClientStream.Trailer()
}

// reads runs watch on a connection to a server, which what describes. early
// says that it asked for the trailer too early.
func reads(ctx context.Context, l *lab.Lab, what string, conn *grpc.ClientConn, limit time.Duration) (last string, early bool, err error) {
	l.Helper()
	a := &asked{ClientConn: conn, again: func() { // says so at once: an answer may try for ever
		l.Errorf("%s, and watch called Watch a second time, want one call: whether to try again is up to its caller", what)
	}}
	l.Call(what+", and watch", limit, func() { last, err = watch(ctx, feedv1.NewFeedServiceClient(a), "alerts") })
	if l.Failed() {
		l.FailNow()
	}
	return last, a.early.Load(), err
}

// wantRead checks what watch returned when the server ended the stream.
func wantRead(l *lab.Lab, what string, s script, limit time.Duration, cursor string, want codes.Code) {
	l.Helper()
	link := l.NewLink()
	link.Serve(s)
	last, early, err := reads(l.Context(), l, what, link.Dial(), limit)
	switch {
	case want == codes.OK && err != nil:
		l.Fatalf("%s, and watch returned an error with code %v (%v), want none", what, codeOf(err), err)
	case want != codes.OK && err == nil:
		l.Fatalf("%s, and watch returned no error, want code %v", what, want)
	case codeOf(err) != want:
		l.Fatalf("%s, and watch returned code %v (%v), want %v", what, codeOf(err), err, want)
	case early:
		l.Fatalf("%s, and watch asked for the trailer before Recv had returned an error: it may not be there yet, and to look is a data race", what)
	case last != cursor:
		l.Fatalf("%s, and watch returned the cursor %q, want %q", what, last, cursor)
	}
}

func TestTheClientReturnsTheCursorOfTheTrailer(t *testing.T) {
	for _, tt := range []struct {
		n    int
		wait time.Duration
	}{{3, time.Second}, {3, 0}, {0, time.Second}, {0, 0}, {3000, 0}, {2, 48 * time.Hour}} {
		each(t, func(l *lab.Lab) {
			what := fmt.Sprintf("the server sent %d events, and after %v code OK and last-cursor 4711", tt.n, tt.wait)
			wantRead(l, what, sends(tt.n, cursor(), tt.wait, nil), 50*time.Hour, "4711", codes.OK)
		}, lab.Lasts(72*time.Hour))
	}
}

func TestTheClientReturnsNoCursorWithoutOne(t *testing.T) {
	noTopic := status.Error(codes.NotFound, "no such topic")
	for _, tt := range []struct {
		what    string
		trailer metadata.MD
		end     error
	}{
		{"an empty last-cursor", metadata.Pairs("last-cursor", ""), nil},
		{"no trailer", nil, nil},
		{"no trailer", nil, noTopic},
	} {
		each(t, func(l *lab.Lab) {
			want := status.Code(tt.end)
			what := fmt.Sprintf("the server sent 3 events, and code %v with %s", want, tt.what)
			wantRead(l, what, sends(3, tt.trailer, 0, tt.end), time.Minute, "", want)
		})
	}
}

// All codes, with a text that looks like a good end.
func TestTheClientReturnsTheCursorBesideAnError(t *testing.T) {
	for _, n := range []int{2, 0} {
		for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
			each(t, func(l *lab.Lab) {
				what := fmt.Sprintf("the server sent %d events, and code %v and last-cursor 4711", n, c)
				wantRead(l, what, sends(n, cursor(), 0, status.Error(c, "EOF")), time.Minute, "4711", c)
			})
		}
	}
}

func TestTheClientAsksForTheTopic(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		asked := make(chan string, 10)
		link := l.NewLink()
		link.Serve(script{watch: func(topic string, _ watchServer) error {
			asked <- topic
			return nil
		}})
		reads(l.Context(), l, "the server answers at once", link.Dial(), time.Minute)
		if got := <-asked; got != "alerts" {
			l.Fatalf("watch was called for the topic \"alerts\" and asked for %q", got)
		}
	})
}

// wantEnded checks that watch ends, with an error, within a second of what
// happens after 2.3 s.
func wantEnded(t *testing.T, what string, want codes.Code, happens func(ctx context.Context, link *lab.Link, srv *grpc.Server) (context.Context, func())) {
	t.Helper()
	each(t, func(l *lab.Lab) {
		const after = 2300 * time.Millisecond
		link := l.NewLink()
		srv := link.Serve(sends(2, cursor(), 100*time.Hour, nil))
		conn := link.Dial()
		ctx, cancel := happens(l.Context(), link, srv)
		defer cancel()
		start := time.Now()
		last, _, err := reads(ctx, l, what, conn, time.Minute)
		late := time.Since(start) - after
		switch {
		case err == nil:
			l.Fatalf("%s, the topic had not ended, and watch returned %q and no error", what, last)
		case codeOf(err) != want:
			l.Fatalf("%s, and watch returned code %v (%v), want %v", what, codeOf(err), err, want)
		case last != "":
			l.Fatalf("%s before the server had told a cursor, and watch returned the cursor %q, want none", what, last)
		case late > second:
			l.Fatalf("%s, and watch returned %v later, want at most 1s", what, late)
		case late < 0:
			l.Fatalf("%s after %v, and watch gave up after %v", what, after, late+after)
		}
	})
}

func TestTheClientEndsWithItsCaller(t *testing.T) {
	wantEnded(t, "the caller cancelled", codes.Canceled, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, func()) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(2300*time.Millisecond, cancel)
		return ctx, cancel
	})
	wantEnded(t, "the caller's deadline passed", codes.DeadlineExceeded, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, func()) {
		return context.WithTimeout(ctx, 2300*time.Millisecond)
	})
}

func TestTheClientEndsWhenTheConnectionBreaks(t *testing.T) {
	wantEnded(t, "the network was cut", codes.Unavailable, func(ctx context.Context, link *lab.Link, _ *grpc.Server) (context.Context, func()) {
		time.AfterFunc(2300*time.Millisecond, link.Cut)
		return ctx, func() {}
	})
	wantEnded(t, "the server was stopped", codes.Unavailable, func(ctx context.Context, _ *lab.Link, srv *grpc.Server) (context.Context, func()) {
		time.AfterFunc(2300*time.Millisecond, srv.Stop)
		return ctx, func() {}
	})
}

func TestTheClientSaysThatItCannotBegin(t *testing.T) {
	for _, want := range []codes.Code{codes.Canceled, codes.Unavailable} {
		each(t, func(l *lab.Lab) {
			link := l.NewLink()
			link.Serve(sends(0, cursor(), 0, nil))
			conn := link.Dial()
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			what := "the caller had cancelled before the call"
			if want == codes.Canceled {
				cancel()
			} else {
				what = "no server can be reached"
				link.Cut()
				time.Sleep(time.Second) // the client has noticed
			}
			last, _, err := reads(ctx, l, what, conn, second)
			if err == nil || codeOf(err) != want || last != "" {
				l.Fatalf("%s, and watch returned %q and code %v (%v), want no cursor and code %v", what, last, codeOf(err), err, want)
			}
		})
	}
}
