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
	pause    time.Duration // before each message
	slow     time.Duration // what reply takes
	what     string        // the server: "a server that echoes"
	script   func(*bench, chatServer) error
	during   func(*bench) // what else happens; may be nil

	cancel context.CancelFunc // the caller's; nil if there is no deadline

	mu       sync.Mutex
	taken    int // messages, by the answer
	sent     int // messages that Send has taken over
	closed   int // how many it had heard at the half-close; -1 if there was none
	heard    int // messages, by the server
	answers  []string
	received int // answers, by Recv
	had      int // answers, by reply
	busy     bool
	ended    time.Time // the server's end; zero as long as there was none
	end      error
	handed   time.Time // when msgs last gave a message, or reply returned
	returned bool      // pipeline
	wrong    string    // what is wrong with how the answer used what it was given; the first thing
	late     string    // a call of reply after the return

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

// wantFew checks how much of one kind the answer holds. The caller holds mu.
func (b *bench) wantFew(what string, in, out int) {
	if n := in - out; n > mostHeld {
		b.blame("pipeline had "+what+" %d of them: it held %d, in hand and in queues, want at most %d", in, out, n, mostHeld)
	}
}

// nth is the beginning of a text.
func nth(list []string, n int) string {
	if n >= len(list) {
		return "none"
	}
	return fmt.Sprintf("%.12q", list[n])
}

// msgs is what pipeline ranges over, once.
func (b *bench) msgs(yield func(string) bool) {
	b.note(func() {
		if b.taken > 0 {
			b.blame("pipeline ranged over msgs a second time, after %d messages", b.taken)
		}
	})
	for _, msg := range b.messages {
		time.Sleep(b.pause)
		b.note(func() {
			b.taken++
			b.handed = time.Now()
			b.wantFew("taken %d messages, and Send had taken over", b.taken, b.sent)
		})
		if !yield(msg) {
			return
		}
	}
}

// reply is what pipeline calls.
func (b *bench) reply(text string) {
	b.note(func() {
		switch {
		case b.returned:
			b.late = fmt.Sprintf("pipeline called reply after it had returned, with %.12q", text)
		case b.busy:
			b.blame("pipeline called reply while another call of reply ran")
		case b.had >= len(b.answers) || b.answers[b.had] != text:
			b.blame("call %d of reply was with %.12q, want %s: Recv has returned %d replies, and each goes to reply", b.had+1, text, nth(b.answers, b.had), b.received)
		}
		b.busy = true
	})
	time.Sleep(b.slow)
	b.note(func() { b.busy = false; b.had++; b.handed = time.Now() })
}

type countedClient struct {
	grpc.ClientStream
	b *bench
}

func (s countedClient) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if err == nil {
		s.b.note(func() { s.b.sent++ })
	}
	return err
}

func (s countedClient) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		s.b.note(func() {
			s.b.received++
			s.b.wantFew("received %d replies, and reply had had", s.b.received, s.b.had)
		})
	}
	return err
}

// Chat plays the script. The end is the server's unless the client was first.
func (b *bench) Chat(stream chatServer) error {
	err := b.script(b, stream)
	b.note(func() {
		if stream.Context().Err() == nil && !b.returned {
			b.ended, b.end = time.Now(), err
		}
	})
	return err
}

// hear reads a message. io.EOF is the half-close.
func (b *bench) hear(stream chatServer) (string, error) {
	msg, err := stream.Recv()
	b.note(func() {
		if err == nil {
			if b.heard >= len(b.messages) || b.messages[b.heard] != msg.GetText() {
				b.blame("message %d reached the server as %.12q, want %s", b.heard+1, msg.GetText(), nth(b.messages, b.heard))
			}
			b.heard++
		} else if errors.Is(err, io.EOF) {
			b.closed = b.heard
		}
	})
	return msg.GetText(), err
}

// say sends a reply n times.
func (b *bench) say(stream chatServer, n int, text string) error {
	for range n {
		if err := stream.Send(&feedv1.ChatMessage{Text: text}); err != nil {
			return err
		}
		b.note(func() { b.answers = append(b.answers, text) })
	}
	return nil
}

// hearAll answers each of up to n messages so many times, until the half-close.
func (b *bench) hearAll(stream chatServer, n, times int) error {
	for range n {
		text, err := b.hear(stream)
		if err == nil {
			err = b.say(stream, times, text)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
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

// chat is a script: speak so many times first, answer each message so many
// times, and speak so many times at the end. What follows an error fails too.
func chat(first, each, last int) func(*bench, chatServer) error {
	return func(b *bench, stream chatServer) error {
		return cmp.Or(b.say(stream, first, "hello"), b.hearAll(stream, all, each), b.say(stream, last, strings.Repeat("x", 1000)))
	}
}

var echo = chat(0, 1, 0)

func messages(n, size int) []string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("%d %s", max(i, 1), strings.Repeat("x", size-5))) // two are equal
	}
	return all
}

// view is how far both sides are. The caller holds mu.
func (b *bench) view() string {
	text := fmt.Sprintf("%d of %d messages were sent; the server has read %d and sent %d replies; Recv has returned %d of them, and reply has had %d",
		b.sent, len(b.messages), b.heard, len(b.answers), b.received, b.had)
	if b.closed < 0 {
		text += "; the server has seen no half-close"
	}
	return text
}

// run calls pipeline, which returns within limit, and then checks it.
func (b *bench) run(t *testing.T, limit time.Duration, check func(*bench)) {
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
		ctx := l.Context()
		if b.deadline > 0 {
			ctx, b.cancel = context.WithTimeout(ctx, b.deadline)
			defer b.cancel()
		}
		if b.during != nil {
			b.during(b)
		}
		b.began = time.Now()
		defer func() {
			if !b.returned {
				b.note(func() { l.Errorf("meanwhile %s", b.view()) })
			}
		}()
		l.Call("pipeline with "+b.what, limit, func() { b.err = pipeline(ctx, feedv1.NewFeedServiceClient(conn), b.msgs, b.reply) })
		b.note(func() { b.returned, b.took = true, time.Since(b.began) })
		leaks := l.Leaks() // in the next second; unless it has ended, the caller's context lives
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.wrong != "" {
			l.Fatalf("%s (%s)", b.wrong, b.what)
		}
		if n := len(l.RPCs()); n > 1 {
			l.Fatalf("pipeline opened %d streams, want one", n)
		}
		check(b)
		if b.late != "" {
			l.Fatalf("%s (%s)", b.late, b.what)
		}
		if len(leaks) > 0 {
			l.Fatalf("pipeline with %s has returned, and a second later %s", b.what, strings.Join(leaks, "\n"))
		}
	}, lab.Lasts(40*day))
}

// wantWhole checks a pipeline that the server has ended.
func (b *bench) wantWhole() {
	b.Helper()
	if b.ended.IsZero() {
		b.Fatalf("pipeline with %s returned after %v with the error %v, before the server had ended the stream; %s", b.what, b.took, b.err, b.view())
	}
	b.wantEnd("with "+b.what, status.Code(b.end), b.ended)
	if b.closed >= 0 && b.closed != len(b.messages) {
		b.Fatalf("pipeline with %s half-closed the stream after %d messages, want %d", b.what, b.closed, len(b.messages))
	}
	if b.had != len(b.answers) {
		b.Fatalf("pipeline with %s returned when reply had had %d of %d replies", b.what, b.had, len(b.answers))
	}
}

// why says how an error came to have no code.
func why(err error) string {
	switch _, ok := status.FromError(err); {
	case errors.Is(err, io.EOF):
		return ": that is the io.EOF of a call on an ended stream, and not the server's status"
	case !ok && strings.Contains(err.Error(), "rpc error: "):
		return ": status.Code finds the status in the text only"
	}
	return ""
}

// wantEnd checks pipeline's error, and that it came soon after the end, or after
// the last call of msgs or reply. A context's own error is as good as the status
// that gRPC makes of it.
func (b *bench) wantEnd(when string, want codes.Code, end time.Time) {
	b.Helper()
	got := status.Code(b.err)
	switch {
	case errors.Is(b.err, context.Canceled):
		got = codes.Canceled
	case errors.Is(b.err, context.DeadlineExceeded):
		got = codes.DeadlineExceeded
	}
	if got != want {
		b.Fatalf("%s, pipeline returned after %v with code %v (%v), want %v%s; %s", when, b.took, got, b.err, want, why(b.err), b.view())
	}
	if b.handed.After(end) {
		end = b.handed
	}
	if late := b.began.Add(b.took).Sub(end); late > soon+lab.Latency {
		b.Fatalf("%s, pipeline returned %v after the end, want at most %v", when, late, soon)
	}
}

func TestPipelineDoesNotLock(t *testing.T) {
	const limit = 5 * time.Second
	for _, size := range []struct{ n, bytes int }{{200, 10_000}, {1300, 250}, {6, 300_000}} {
		what := fmt.Sprintf("a server that echoes %d messages of %d B", size.n, size.bytes)
		(&bench{what: what, script: echo, messages: messages(size.n, size.bytes)}).run(t, time.Minute, func(b *bench) {
			b.wantWhole()
			if b.took > limit {
				b.Fatalf("pipeline with %s returned after %v, want at most %v", what, b.took.Round(time.Millisecond), limit)
			}
		})
	}
}

func TestPipelineChangesNoText(t *testing.T) {
	texts := []string{"one", "", " two ", "two\n", "two\n", ""}
	(&bench{what: "a server that echoes short and empty messages", script: echo, messages: texts}).run(t, time.Minute, (*bench).wantWhole)
}

func TestPipelineKnowsNoNumberOfReplies(t *testing.T) {
	for _, tt := range []struct {
		what              string
		n                 int
		first, each, last int
	}{
		{"a server that answers nothing", 6000, 0, 0, 0},
		{"a server that answers after the half-close", 300, 0, 0, 300},
		{"a server that speaks first", 300, 1, 1, 0},
		{"a server that answers each message three times", 300, 0, 3, 0},
	} {
		for _, n := range []int{tt.n, 0} {
			(&bench{what: tt.what, script: chat(tt.first, tt.each, tt.last), messages: messages(n, 300_000/max(n, 300))}).run(t, time.Minute, (*bench).wantWhole)
		}
	}
}

func TestPipelineSetsNoTimeLimit(t *testing.T) {
	script := func(b *bench, stream chatServer) error {
		if deadline, ok := stream.Context().Deadline(); ok {
			b.note(func() {
				b.blame("pipeline gave its stream a deadline, %v from now; its caller's context has none", time.Until(deadline).Round(time.Second))
			})
		}
		return cmp.Or(wait(stream, 30*day), echo(b, stream))
	}
	(&bench{what: "a server that reads nothing for 30 days", script: script, messages: messages(400, 1000)}).run(t, 31*day, (*bench).wantWhole)
}

func TestPipelineHandsOnWhatIsThere(t *testing.T) {
	const pause = 3 * time.Hour
	b := &bench{what: "a server that speaks first, and echoes a message each 3h", script: chat(1, 1, 0), messages: messages(20, 100), pause: pause}
	b.during = func(b *bench) {
		for i := range 20 {
			at := time.Duration(i)*pause + soon
			time.AfterFunc(at, func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				if b.had <= i && !b.Failed() {
					b.Errorf("with %s, %v after the call %s; want %d messages read and %d replies at reply: msgs gives the next message in 3h, and nothing may wait for that", b.what, at, b.view(), i, i+1)
				}
			})
		}
	}
	b.run(t, 3*day, (*bench).wantWhole)
}

func TestPipelineKeepsToThePaceOfReply(t *testing.T) {
	(&bench{what: "a reply that takes a minute", script: echo, messages: messages(400, 1000), slow: time.Minute}).run(t, day, (*bench).wantWhole)
}

// reads is a script: read up to n messages and answer each, wait, and end.
func reads(n int, after time.Duration, end error) func(*bench, chatServer) error {
	return func(b *bench, stream chatServer) error {
		return cmp.Or(b.hearAll(stream, n, 1), wait(stream, after), end)
	}
}

func TestPipelineEndsAsTheServerEnds(t *testing.T) {
	for _, end := range []error{
		status.Error(codes.ResourceExhausted, "the disk is full"), status.Error(codes.Canceled, "not ours"),
		status.Error(codes.Unknown, "EOF"), nil,
	} {
		for _, state := range []struct {
			what               string
			n                  int
			after, slow, pause time.Duration
		}{
			{"after 3 messages, while reply took its time", 3, 0, time.Minute, 0}, // Send is the first to know
			{"while Send waited", 0, time.Minute, 0, 0},
			{"an hour after the half-close", all, time.Hour, 0, 0},
			{"after 3 messages, while msgs took an hour for the next", 3, 0, 0, time.Hour},
		} {
			what := fmt.Sprintf("a server that ends with code %v %s", status.Code(end), state.what)
			(&bench{what: what, script: reads(state.n, state.after, end), messages: messages(400, 1000), slow: state.slow, pause: state.pause}).run(t, day, (*bench).wantWhole)
		}
	}
}

const moment = 3300 * time.Millisecond

// testEnd lets something happen while pipeline waits for Send, for a reply, for
// reply, and for msgs.
func testEnd(t *testing.T, what string, want codes.Code, deadline time.Duration, happen func(*bench)) {
	t.Helper()
	for _, state := range []struct {
		what        string
		reads       int
		slow, pause time.Duration
	}{
		{"while Send waited for the server", 0, 0, 0},
		{"while the server had answered everything and not ended", all, 0, 0},
		{"while reply took its time", all, 100 * time.Millisecond, 0},
		{"while msgs took its time", all, 0, 5 * time.Second},
	} {
		b := &bench{what: "a server that stays", script: reads(state.reads, 3*day, nil), messages: messages(400, 1000), deadline: deadline, slow: state.slow, pause: state.pause}
		b.during = func(b *bench) { time.AfterFunc(moment, func() { happen(b) }) }
		b.run(t, 2*time.Minute, func(b *bench) { b.wantEnd(what+" "+state.what, want, b.began.Add(moment)) })
	}
}

func TestPipelineEndsWithItsContext(t *testing.T) {
	testEnd(t, "the caller cancelled", codes.Canceled, day, func(b *bench) { b.cancel() })
	testEnd(t, "the caller's deadline passed", codes.DeadlineExceeded, moment, func(*bench) {})
}

func TestPipelineEndsWithTheConnection(t *testing.T) {
	testEnd(t, "the connection broke", codes.Unavailable, 0, func(b *bench) { b.link.Cut() })
	testEnd(t, "the server was stopped", codes.Unavailable, 0, func(b *bench) { b.srv.Stop() })
}

func TestPipelineSaysThatThereIsNoServer(t *testing.T) {
	b := &bench{what: "no server", script: echo, messages: messages(400, 1000)}
	b.during = func(b *bench) {
		b.link.Cut()
		time.Sleep(time.Second) // the client has noticed
	}
	b.run(t, time.Minute, func(b *bench) { b.wantEnd("there was no server", codes.Unavailable, b.began) })
}
