package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
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
	mostHeld = 16          // messages that Send has not taken over, or replies that reply has not had
	soon     = time.Second // for a message, a reply, and an end
	day      = 24 * time.Hour
)

// A bench is one call of pipeline: its messages, its server, and what both
// sides have seen.
type bench struct {
	*lab.Lab
	link *lab.Link
	srv  *grpc.Server

	messages []string
	deadline time.Duration // of the caller's context; 0 is none
	pause    time.Duration // before each message but the first
	slow     time.Duration // what reply takes
	what     string        // the server: "a server that echoes"
	script   func(*bench, chatServer) error

	mu       sync.Mutex
	taken    int // messages, by the answer
	sent     int // messages that Send has taken over
	closed   int // how many it had heard at the half-close; -1 if there was none
	heard    int // messages, by the server
	answered int // replies
	received int // replies, by Recv
	had      int // replies, by reply
	busy     bool
	ended    time.Time // the server's end; zero as long as there was none
	end      error
	handed   time.Time // when reply last returned
	returned bool      // pipeline
	wrong    string    // what is wrong with how the answer used what it was given; the first thing

	began time.Time // the call
	took  time.Duration
	err   error // what pipeline returned
}

func (b *bench) note(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f()
}

// blame keeps the first thing that is wrong. The caller holds mu.
func (b *bench) blame(format string, args ...any) {
	if b.wrong == "" {
		b.wrong = fmt.Sprintf(format, args...)
	}
}

// msgs is what pipeline ranges over, once.
func (b *bench) msgs(yield func(string) bool) {
	b.note(func() {
		if b.taken > 0 {
			b.blame("pipeline ranged over msgs a second time, after %d messages", b.taken)
		}
	})
	for i, msg := range b.messages {
		if i > 0 && b.pause > 0 {
			time.Sleep(b.pause)
		}
		b.note(func() {
			b.taken++
			if n := b.taken - b.sent; n > mostHeld {
				b.blame("pipeline had taken %d messages, and Send had taken over %d of them: it held %d in between, want at most %d", b.taken, b.sent, n, mostHeld)
			}
		})
		if !yield(msg) {
			return
		}
	}
}

// reply is what pipeline calls.
func (b *bench) reply(text string) {
	b.note(func() {
		want := fmt.Sprint(b.had)
		if got, _, _ := strings.Cut(text, " "); got != want && !b.busy {
			b.blame("call %d of reply was for reply %s of the server, want reply %s", b.had+1, got, want)
		}
		if b.busy {
			b.blame("pipeline called reply while another call of reply ran")
		}
		if b.returned {
			b.blame("pipeline called reply after it had returned, with reply %s of the server", want)
		}
		b.busy = true
	})
	if b.slow > 0 {
		time.Sleep(b.slow)
	}
	b.note(func() { b.busy = false; b.had++; b.handed = time.Now() })
}

type countedClient struct {
	grpc.ClientStream
	b *bench
}

func (s countedClient) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	s.b.note(func() {
		if err == nil {
			s.b.sent++
		}
	})
	return err
}

func (s countedClient) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	s.b.note(func() {
		if err != nil {
			return
		}
		s.b.received++
		if n := s.b.received - s.b.had; n > mostHeld {
			s.b.blame("pipeline had received %d replies, and reply had had %d of them: it held %d in between, want at most %d", s.b.received, s.b.had, n, mostHeld)
		}
	})
	return err
}

// Chat plays the script. The end is the server's unless the client has ended
// the stream before.
func (b *bench) Chat(stream chatServer) error {
	err := b.script(b, stream)
	b.note(func() {
		if stream.Context().Err() == nil {
			b.ended, b.end = time.Now(), err
		}
	})
	return err
}

// hear reads a message. io.EOF is the half-close.
func (b *bench) hear(stream chatServer) error {
	msg, err := stream.Recv()
	b.note(func() {
		switch {
		case errors.Is(err, io.EOF):
			b.closed = b.heard
		case err != nil:
		case b.heard >= len(b.messages) || msg.GetText() != b.messages[b.heard]:
			b.blame("message %d that the server received is not message %d of msgs", b.heard+1, b.heard+1)
			b.heard++
		default:
			b.heard++
		}
	})
	return err
}

// say sends n replies with their numbers, of about size bytes each.
func (b *bench) say(stream chatServer, n, size int) error {
	for range n {
		text := fmt.Sprintf("%d %s", b.answered, strings.Repeat("x", size))
		if err := stream.Send(&feedv1.ChatMessage{Text: text}); err != nil {
			return err
		}
		b.note(func() { b.answered++ })
	}
	return nil
}

// hearAll answers each of up to n messages so many times, until the half-close.
func (b *bench) hearAll(stream chatServer, n, times int) error {
	for range n {
		err := b.hear(stream)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := b.say(stream, times, len(b.messages[0])); err != nil {
			return err
		}
	}
	return nil
}

func wait(stream chatServer, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// all is more than any test has.
const all = 1_000_000

func echo(b *bench, stream chatServer) error { return b.hearAll(stream, all, 1) }

func messages(n, size int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%d %s", max(i, 1), strings.Repeat("x", size-5))) // two are equal
	}
	return all
}

// view is how far both sides are.
func (b *bench) view() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	text := fmt.Sprintf("%d of %d messages were sent; the server has read %d and sent %d replies; Recv has returned %d of them, and reply has had %d",
		b.sent, len(b.messages), b.heard, b.answered, b.received, b.had)
	if b.closed < 0 {
		text += "; the server has seen no half-close"
	}
	return text
}

// run calls pipeline, which returns within limit. First comes what happens
// meanwhile, or nil, and then what is wanted.
func (b *bench) run(t *testing.T, limit time.Duration, during func(*bench, func()), then func(*bench)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b.Lab, b.link, b.closed = l, l.NewLink(), -1
		b.srv = b.link.Serve(&server{chat: b.Chat})
		conn := b.link.Dial(grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn,
			method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			stream, err := open(ctx, desc, conn, method, opts...)
			if err != nil {
				return nil, err
			}
			return countedClient{stream, b}, nil
		}))
		ctx, cancel := context.WithTimeout(l.Context(), cmp.Or(b.deadline, 4*day))
		defer cancel()
		if during != nil {
			during(b, cancel)
		}
		b.began = time.Now()
		defer func() {
			if !b.returned {
				l.Errorf("meanwhile %s", b.view())
			}
		}()
		l.Call("pipeline with "+b.what, limit, func() { b.err = pipeline(ctx, feedv1.NewFeedServiceClient(conn), b.msgs, b.reply) })
		b.note(func() { b.returned, b.took = true, time.Since(b.began) })
		b.wantNoMisuse()
		if n := len(l.RPCs()); n > 1 {
			l.Fatalf("pipeline opened %d streams, want one", n)
		}
		then(b)
		cancel()
		leaks := l.Leaks()
		b.wantNoMisuse()
		if len(leaks) > 0 {
			l.Fatalf("pipeline with %s has returned, and a second later %s", b.what, strings.Join(leaks, "\n"))
		}
	}, lab.Lasts(4*day))
}

func (b *bench) wantNoMisuse() {
	b.Helper()
	b.mu.Lock()
	what := b.wrong
	b.mu.Unlock()
	if what != "" {
		b.Fatalf("%s (%s)", what, b.what)
	}
}

// wantWhole checks a pipeline that the server has ended.
func (b *bench) wantWhole() {
	b.Helper()
	view := b.view()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.ended.IsZero():
		b.Fatalf("pipeline with %s returned after %v with the error %v, before the server had ended the stream; %s", b.what, b.took, b.err, view)
	case status.Code(b.err) != status.Code(b.end):
		b.Fatalf("pipeline with %s returned after %v with code %v (%v), want %v; %s", b.what, b.took, status.Code(b.err), b.err, status.Code(b.end), view)
	case b.closed >= 0 && b.closed != len(b.messages):
		b.Fatalf("pipeline with %s half-closed the stream after %d messages, want %d", b.what, b.closed, len(b.messages))
	case b.had != b.answered:
		b.Fatalf("pipeline with %s returned when reply had had %d of %d replies", b.what, b.had, b.answered)
	}
	b.wantSoon("the server ended the stream", later(b.ended, b.handed))
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// wantEnd checks pipeline's error, and that it came soon. A context's own error
// is as good as the status that gRPC makes of it.
func (b *bench) wantEnd(when string, want codes.Code, since time.Time) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	got := status.Code(b.err)
	switch {
	case errors.Is(b.err, context.Canceled):
		got = codes.Canceled
	case errors.Is(b.err, context.DeadlineExceeded):
		got = codes.DeadlineExceeded
	}
	switch {
	case b.err == nil && want != codes.OK:
		b.Fatalf("%s, and pipeline returned no error, want code %v", when, want)
	case got != want:
		b.Fatalf("%s, and pipeline returned code %v (%v), want %v", when, got, b.err, want)
	}
	b.wantSoon(when, later(since, b.handed))
}

// wantSoon checks that pipeline returned a second after what at the latest.
func (b *bench) wantSoon(what string, since time.Time) {
	b.Helper()
	if late := b.began.Add(b.took).Sub(since); late > soon+lab.Latency {
		b.Fatalf("%s, and pipeline returned %v later, want at most %v", what, late, soon)
	}
}

func TestPipelineDoesNotLock(t *testing.T) {
	const limit = 5 * time.Second
	for _, size := range []struct{ n, bytes int }{{200, 10_000}, {2600, 100}, {6, 300_000}, {1, 1000}} {
		what := fmt.Sprintf("a server that echoes %d messages of %d B", size.n, size.bytes)
		(&bench{what: what, script: echo, messages: messages(size.n, size.bytes)}).run(t, time.Minute, nil, func(b *bench) {
			b.wantWhole()
			if b.took > limit {
				b.Fatalf("pipeline with %s returned after %v, want at most %v", what, b.took.Round(time.Millisecond), limit)
			}
		})
	}
}

func TestPipelineKnowsNoNumberOfReplies(t *testing.T) {
	for _, tt := range []struct {
		what                  string
		first, each, atTheEnd int
	}{
		{"a server that answers nothing", 0, 0, 0},
		{"a server that answers after the half-close", 0, 0, 300},
		{"a server that speaks first", 1, 1, 0},
		{"a server that answers each message three times", 0, 3, 0},
	} {
		for _, n := range []int{300, 0} {
			script := func(b *bench, stream chatServer) error {
				if err := b.say(stream, tt.first, 10); err != nil {
					return err
				}
				if err := b.hearAll(stream, all, tt.each); err != nil {
					return err
				}
				return b.say(stream, tt.atTheEnd, 1000)
			}
			(&bench{what: tt.what, script: script, messages: messages(n, 1000)}).run(t, time.Minute, nil, (*bench).wantWhole)
		}
	}
}

func TestPipelineHandsOnWhatIsThere(t *testing.T) {
	const pause = 3 * time.Hour
	b := &bench{what: "a server that echoes a message each 3h", script: echo, messages: messages(20, 100), pause: pause}
	b.run(t, 3*day, func(b *bench, _ func()) {
		for i := range 20 {
			time.AfterFunc(time.Duration(i)*pause+soon, func() {
				b.mu.Lock()
				had, received, heard := b.had, b.received, b.heard
				b.mu.Unlock()
				if had <= i && !b.Failed() {
					b.Errorf("%v after msgs gave message %d the server had read %d, Recv had returned %d replies, and reply had had %d", soon, i+1, heard, received, had)
				}
			})
		}
	}, (*bench).wantWhole)
}

func TestPipelineTakesNoMoreThanSend(t *testing.T) {
	script := func(b *bench, stream chatServer) error {
		if err := wait(stream, day); err != nil {
			return err
		}
		return echo(b, stream)
	}
	(&bench{what: "a server that reads nothing for a day", script: script, messages: messages(400, 1000)}).run(t, 2*day, nil, (*bench).wantWhole)
}

func TestPipelineKeepsToThePaceOfReply(t *testing.T) {
	(&bench{what: "a reply that takes a minute", script: echo, messages: messages(400, 1000), slow: time.Minute}).run(t, day, nil, (*bench).wantWhole)
}

// reads is a script: read up to n messages and answer each, wait, and end.
func reads(n int, after time.Duration, end error) func(*bench, chatServer) error {
	return func(b *bench, stream chatServer) error {
		if err := b.hearAll(stream, n, 1); err != nil {
			return err
		}
		if err := wait(stream, after); err != nil {
			return err
		}
		return end
	}
}

func TestPipelineEndsAsTheServerEnds(t *testing.T) {
	for _, end := range []error{
		status.Error(codes.ResourceExhausted, "the disk is full"), status.Error(codes.Canceled, "not ours"),
		status.Error(codes.Unknown, "EOF"), nil,
	} {
		for _, state := range []struct {
			what  string
			n     int
			after time.Duration
			slow  time.Duration
		}{
			{"after 3 messages, while reply took its time", 3, 0, time.Minute}, // Send is the first to know
			{"while Send waited", 0, time.Minute, 0},
			{"an hour after the half-close", all, time.Hour, 0},
		} {
			what := fmt.Sprintf("a server that ends with code %v %s", status.Code(end), state.what)
			(&bench{what: what, script: reads(state.n, state.after, end), messages: messages(400, 1000), slow: state.slow}).run(t, day, nil, (*bench).wantWhole)
		}
	}
}

// states are the waits of a pipeline: for Send, for a reply, and for reply.
var states = []struct {
	what  string
	reads int
	slow  time.Duration
}{
	{"while Send waited for the server", 0, 0},
	{"while the server had answered everything and not ended", all, 0},
	{"while reply took its time", all, 100 * time.Millisecond},
}

func TestPipelineEndsWithItsContext(t *testing.T) {
	const after = 3300 * time.Millisecond
	for _, state := range states {
		b := func(deadline time.Duration) *bench {
			return &bench{what: "a server that stays", script: reads(state.reads, 3*day, nil), messages: messages(400, 1000), deadline: deadline, slow: state.slow}
		}
		b(0).run(t, time.Minute, func(_ *bench, cancel func()) { time.AfterFunc(after, cancel) }, func(b *bench) {
			what := "the caller cancelled " + state.what
			b.wantEnd(what, codes.Canceled, b.began.Add(after))
		})
		b(after).run(t, time.Minute, nil, func(b *bench) {
			what := "the caller's deadline passed " + state.what
			b.wantEnd(what, codes.DeadlineExceeded, b.began.Add(after))
		})
	}
}

func TestPipelineEndsWithTheConnection(t *testing.T) {
	const after = 3300 * time.Millisecond
	for _, state := range states {
		for _, end := range []struct {
			what string
			how  func(*bench)
		}{
			{"the connection broke ", func(b *bench) { b.link.Cut() }},
			{"the server was stopped ", func(b *bench) { b.srv.Stop() }},
		} {
			b := &bench{what: "a server that stays", script: reads(state.reads, 3*day, nil), messages: messages(400, 1000), slow: state.slow}
			b.run(t, time.Minute, func(b *bench, _ func()) { time.AfterFunc(after, func() { end.how(b) }) }, func(b *bench) {
				b.wantEnd(end.what+state.what, codes.Unavailable, b.began.Add(after))
			})
		}
	}
}

func TestPipelineSaysThatThereIsNoServer(t *testing.T) {
	b := &bench{what: "no server", script: echo, messages: messages(400, 1000)}
	b.run(t, time.Minute, func(b *bench, _ func()) {
		b.link.Cut()
		time.Sleep(time.Second) // the client has noticed
	}, func(b *bench) {
		b.wantEnd("there was no server", codes.Unavailable, b.began)
	})
}
