package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// What README.md allows.
const (
	toSend   = time.Second // for the lines and the half-close, where Send does not block
	toReturn = time.Second // after whatever ends the session
	inHand   = 10          // replies that Recv has returned and nobody has taken
)

// A peer is a server with a script, which remembers what it saw.
type peer struct {
	feedv1.UnimplementedFeedServiceServer
	what   string // "a server that echoes each line"
	script func(*peer) error
	stream chatServer

	mu   sync.Mutex
	seen record
}

// A record is what a peer saw so far.
type record struct {
	called   bool
	heard    []string
	last     time.Time // when it heard the last of them
	closed   time.Time // when it heard the half-close
	said     int
	returned time.Time // zero as long as the handler runs
}

// saw returns the record.
func (p *peer) saw() record {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen
}

// Chat plays the script on the first stream and refuses any other.
func (p *peer) Chat(stream chatServer) error {
	first := false
	p.note(func() {
		if first = !p.seen.called; first {
			p.seen.called, p.stream = true, stream
		}
	})
	if !first {
		return status.Error(codes.AlreadyExists, "a session is one stream")
	}
	defer p.note(func() { p.seen.returned = time.Now() })
	return p.script(p)
}

func (p *peer) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// hear hands each line to f until the half-close, and n at most.
func (p *peer) hear(n int, f func(line string) error) error {
	for range n {
		msg, err := p.stream.Recv()
		if errors.Is(err, io.EOF) {
			p.note(func() { p.seen.closed = time.Now() })
			return nil
		}
		if err != nil {
			return err
		}
		p.note(func() { p.seen.heard, p.seen.last = append(p.seen.heard, msg.GetText()), time.Now() })
		if err := f(msg.GetText()); err != nil {
			return err
		}
	}
	return nil
}

func (p *peer) hearAll(f func(line string) error) error { return p.hear(1<<30, f) }

func (p *peer) say(texts ...string) error {
	for _, text := range texts {
		if err := p.stream.Send(&feedv1.ChatMessage{From: "server", Text: text}); err != nil {
			return err
		}
		p.note(func() { p.seen.said++ })
	}
	return nil
}

func (p *peer) echo(line string) error { return p.say("echo: " + line) }

func nothing(string) error { return nil }

// untilGone keeps the chat open until the client leaves.
func (p *peer) untilGone() error {
	<-p.stream.Context().Done()
	return p.stream.Context().Err()
}

// wait takes its time before what comes next.
func (p *peer) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-p.stream.Context().Done():
	}
}

// view says what the server saw so far.
func (p *peer) view() string {
	seen := p.saw()
	closed, handler := "no half-close", "its handler still runs"
	if !seen.closed.IsZero() {
		closed = "the half-close"
	}
	switch {
	case !seen.called:
		handler = "its handler was not called"
	case !seen.returned.IsZero():
		handler = "its handler has returned"
	}
	return fmt.Sprintf("the server has heard %s and %s, has said %s, and %s", count(len(seen.heard), "line"), closed, count(seen.said, "reply"), handler)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if what == "reply" {
		what = "replie"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// slow is the client's end of a stream whose failing calls take a while to
// return.
type slow struct {
	grpc.ClientStream
	send, recv time.Duration
	*tally
}

// A tally counts the calls that have not returned, and the replies received.
type tally struct{ pending, received atomic.Int32 }

func (s slow) call(takes time.Duration, f func() error) error {
	s.pending.Add(1)
	defer s.pending.Add(-1)
	err := f()
	if err != nil {
		time.Sleep(takes)
	}
	return err
}

func (s slow) SendMsg(m any) error {
	return s.call(s.send, func() error { return s.ClientStream.SendMsg(m) })
}

func (s slow) RecvMsg(m any) error {
	return s.call(s.recv, func() error {
		err := s.ClientStream.RecvMsg(m)
		if err == nil {
			s.received.Add(1)
		}
		return err
	})
}

// A caller is what surrounds a session.
type caller struct {
	lines    []string      // go into in
	later    time.Duration // before the first of them
	stays    bool          // in is not closed after them
	closes   time.Duration // or after this time
	away     time.Duration // before the reader of out comes
	rests    time.Duration // between two replies
	reads    int           // then the reader leaves; 0 is never
	cancels  bool          // after 2 s, with a cause
	deadline bool          // of 2 s
	end      func(*stage)  // is called after 2 s
	before   func(*stage)  // is called first
	limit    time.Duration // for session to return, a minute at least
	lateSend bool          // a Send that fails returns after Recv, and not before it
}

// An outcome is what a caller has in the end.
type outcome struct {
	replies []string
	ahead   int // the most replies that were received and not taken
	err     error
	took    time.Duration
	last    time.Time // when the reader took the last reply
}

// A stage is where a session is played.
type stage struct {
	*lab.Lab
	peer *peer
	link *lab.Link
	srv  *grpc.Server
	ctx  context.Context // the caller's
}

const soon = 2 * time.Second

// on runs a test with a server.
func on(t *testing.T, p *peer, test func(*stage)) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		s := &stage{Lab: l, peer: p, link: l.NewLink(), ctx: l.Context()}
		s.srv = s.link.Serve(p)
		test(s)
	}, lab.Lasts(40*24*time.Hour))
}

// dial returns a client whose streams are slow.
func (s *stage) dial(all *tally, send, recv time.Duration) feedv1.FeedServiceClient {
	s.Helper()
	return feedv1.NewFeedServiceClient(s.link.Dial(grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc,
		conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		stream, err := open(ctx, desc, conn, method, opts...)
		if err != nil {
			return nil, err
		}
		return slow{stream, send, recv, all}, nil
	})))
}

// hold calls session, is its caller until it returns, and then looks whether
// all of it has ended.
func (s *stage) hold(c caller) (got outcome) {
	s.Helper()
	var all tally
	send, recv := 50*time.Millisecond, 100*time.Millisecond
	if c.lateSend {
		send, recv = recv, 0
	}
	client := s.dial(&all, send, recv)
	in, out, over := make(chan string), make(chan string), make(chan struct{})
	var around sync.WaitGroup
	defer around.Wait()
	defer close(over)
	around.Go(func() {
		time.Sleep(c.later)
		for _, line := range c.lines {
			select {
			case in <- line:
			case <-over:
				return
			}
		}
		if !c.stays {
			time.Sleep(c.closes)
			close(in)
		}
	})
	around.Go(func() {
		pause := c.away
		for n := 0; c.reads == 0 || n < c.reads; n++ {
			select {
			case <-time.After(pause):
			case <-over:
				return
			}
			pause = c.rests
			got.ahead = max(got.ahead, int(all.received.Load())-n)
			select {
			case text, ok := <-out:
				if !ok {
					return
				}
				got.replies, got.last = append(got.replies, text), time.Now()
			case <-over:
				return
			}
		}
	})
	stop := func() {}
	switch {
	case c.before != nil:
		c.before(s)
	case c.deadline:
		s.ctx, stop = context.WithTimeout(s.ctx, soon)
	case c.cancels:
		ctx, cancel := context.WithCancelCause(s.ctx)
		s.ctx, stop = ctx, func() { cancel(errors.New("the user has left")) }
		c.end = func(*stage) { stop() }
	}
	defer func() { stop() }()
	if c.end != nil {
		defer time.AfterFunc(soon, func() { c.end(s) }).Stop()
	}
	start, returned := time.Now(), false
	defer func() {
		if !returned {
			s.Errorf("meanwhile %s", s.peer.view())
		}
	}()
	name := "session with " + s.peer.what
	s.Call(name, max(c.limit, time.Minute), func() { got.err = session(s.ctx, client, in, out) })
	returned = true
	got.took = time.Since(start)
	time.Sleep(time.Nanosecond) // what ends at this very instant has ended
	if n := len(s.RPCs()); n > 1 {
		s.Fatalf("%s opened %d streams, want one", name, n)
	}
	if all.pending.Load() > 0 {
		s.Fatalf("%s has returned, and a part of it is still at work: %s", name, s.Stuck())
	}
	select {
	case text, ok := <-out:
		if ok {
			s.Fatalf("%s has returned, and a part of it still sends to out: %q", name, text)
		}
	default:
		s.Fatalf("%s has returned, and out is not closed: who reads it waits on", name)
	}
	return got
}

// wantLines checks what the server heard.
func (s *stage) wantLines(got outcome, want []string) {
	s.Helper()
	heard := s.peer.saw().heard
	if slices.Equal(heard, want) {
		return
	}
	what := fmt.Sprintf("the server had heard %q, want %q", heard, want)
	if len(heard) < len(want) && slices.Equal(heard, want[:len(heard)]) {
		what = "the server had not heard all lines"
	}
	s.Fatalf("session with %s returned %s after %v, and %s", s.peer.what, said(got.err), got.took, what)
}

// wantReplies checks what the reader of out got.
func (s *stage) wantReplies(got outcome, want []string) {
	s.Helper()
	if slices.Equal(got.replies, want) {
		return
	}
	i := 0
	for i < min(len(got.replies), len(want)) && got.replies[i] == want[i] {
		i++
	}
	what := "the last is one too many"
	switch {
	case i == len(got.replies):
		what = fmt.Sprintf("reply %d, %.60q, is missing", i+1, want[i])
	case i < len(want):
		what = fmt.Sprintf("reply %d is %.60q, want %.60q", i+1, got.replies[i], want[i])
	}
	s.Fatalf("session with %s returned %s after %v, and the reader of out had %s, want %d: %s",
		s.peer.what, said(got.err), got.took, count(len(got.replies), "reply"), len(want), what)
}

// wantEnd checks the end of a chat that the server ended.
func (s *stage) wantEnd(got outcome, want codes.Code) {
	s.Helper()
	returned := s.peer.saw().returned
	switch code := code(got.err); {
	case returned.IsZero():
		s.Fatalf("session with %s returned %s after %v, and the server had not ended the chat, nor the caller", s.peer.what, said(got.err), got.took)
	case code != want:
		s.Fatalf("the server ended the chat with %v, and session with %s returned code %v (%v)", want, s.peer.what, code, got.err)
	}
	end := returned.Add(lab.Latency)
	if got.last.After(end) {
		end = got.last
	}
	if late := time.Since(end); late > toReturn+time.Millisecond {
		s.Fatalf("session with %s returned %v after the chat had ended and the last reply was taken, want at most %v", s.peer.what, late, toReturn)
	}
}

func said(err error) string {
	if err == nil {
		return "no error"
	}
	return fmt.Sprintf("the error %q", err)
}

// code is the status code of an error. A context's own error is as good as the
// status that gRPC makes of it.
func code(err error) codes.Code {
	switch {
	case errors.Is(err, context.Canceled):
		return codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded
	}
	return status.Code(err)
}

var lines = []string{"hello", "", "bye"}

// long is more than a stream takes when the server does not read.
func long(n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%04d", i) + strings.Repeat("x", 996)
	}
	return all
}

func TestSessionHandsOverWhatTheServerSays(t *testing.T) {
	for _, tt := range []struct {
		what   string
		script func(*peer) error
		want   []string
	}{
		{"a server that echoes each line", func(p *peer) error { return p.hearAll(p.echo) }, []string{"echo: hello", "echo: ", "echo: bye"}},
		{"a server that speaks first", func(p *peer) error {
			p.say("welcome", "")
			return p.hearAll(nothing)
		}, []string{"welcome", ""}},
		{"a server that answers after the half-close", func(p *peer) error {
			if err := p.hearAll(nothing); err != nil {
				return err
			}
			p.wait(time.Hour)
			return p.say(p.saw().heard...)
		}, lines},
		{"a server that never answers", func(p *peer) error { return p.hearAll(nothing) }, nil},
	} {
		on(t, &peer{what: tt.what, script: tt.script}, func(s *stage) {
			got := s.hold(caller{lines: lines, limit: 2 * time.Hour})
			s.wantLines(got, lines)
			s.wantReplies(got, tt.want)
			s.wantEnd(got, codes.OK)
		})
		if t.Failed() {
			return
		}
	}
}

// Lines and the half-close leave while a reply waits for its reader.
func TestSessionSaysAllWhileNobodyReadsOut(t *testing.T) {
	p := &peer{what: "a server that speaks first and then listens, while nobody reads out for an hour,", script: func(p *peer) error {
		p.say("one", "two", "three")
		return p.hearAll(nothing)
	}}
	on(t, p, func(s *stage) {
		start := time.Now()
		got := s.hold(caller{lines: lines, later: soon, closes: time.Minute, away: time.Hour, limit: 2 * time.Hour})
		s.wantLines(got, lines)
		saw := p.saw()
		if saw.closed.IsZero() {
			s.Fatalf("session with %s returned %s after %v, and had not half-closed", p.what, said(got.err), got.took)
		}
		for _, late := range []struct {
			what string
			by   time.Duration
		}{
			{"said its last line %v after in had it", saw.last.Sub(start) - soon},
			{"half-closed %v after in was closed", saw.closed.Sub(start) - soon - time.Minute},
		} {
			if late.by > toSend {
				s.Fatalf("session with %s "+late.what+", want at most %v, also while nobody reads out", p.what, late.by.Round(time.Millisecond), toSend)
			}
		}
		s.wantReplies(got, []string{"one", "two", "three"})
		s.wantEnd(got, codes.OK)
	})
}

func TestSessionWaitsForASlowReader(t *testing.T) {
	want := long(300) // more than a stream takes while nobody reads
	p := &peer{what: "a server that says 300 lines at once and ends the chat, while the reader of out comes after two days and takes one an hour,"}
	p.script = func(p *peer) error {
		if err := p.hearAll(nothing); err != nil {
			return err
		}
		return p.say(want...)
	}
	on(t, p, func(s *stage) {
		got := s.hold(caller{away: 48 * time.Hour, rests: time.Hour, limit: 20 * 24 * time.Hour})
		s.wantReplies(got, want)
		s.wantEnd(got, codes.OK)
	})
}

// The server ends the chat, with OK or not, before in has an end.
func TestSessionEndsWithItsServerWhileInStaysOpen(t *testing.T) {
	for _, want := range []codes.Code{codes.OK, codes.FailedPrecondition} {
		for _, tt := range []struct {
			what         string
			hears, lines int
		}{
			{"ends the chat, and no line comes from in, which stays open,", 0, 0},
			{"ends the chat after the first line, while in stays open,", 1, 1},
			{"ends the chat before the first line comes from in, which stays open,", 0, 1},
		} {
			p := &peer{what: "a server that says two replies, for which the reader of out comes a minute later, and " + tt.what}
			p.script = func(p *peer) error {
				if err := p.hear(tt.hears, nothing); err != nil {
					return err
				}
				p.say("welcome", "bye")
				return status.Error(want, "the room is closed")
			}
			on(t, p, func(s *stage) {
				got := s.hold(caller{lines: lines[:tt.lines], later: soon, stays: true, away: time.Minute, rests: time.Minute, limit: time.Hour})
				s.wantReplies(got, []string{"welcome", "bye"})
				s.wantEnd(got, want)
			})
			if t.Failed() {
				return
			}
		}
	}
}

// Send and Recv fail both, and either may return last.
func TestSessionEndsWithItsServerWhileSendWaits(t *testing.T) {
	for _, want := range []codes.Code{codes.OK, codes.FailedPrecondition} {
		for _, lateSend := range []bool{false, true} {
			p := &peer{what: "a server that hears one line, and ends the chat while Send is blocked,"}
			p.script = func(p *peer) error {
				if err := p.hear(1, p.echo); err != nil {
					return err
				}
				p.wait(soon)
				return status.Error(want, "the room is closed")
			}
			on(t, p, func(s *stage) {
				got := s.hold(caller{lines: long(300), lateSend: lateSend})
				s.wantReplies(got, []string{"echo: " + long(1)[0]})
				s.wantEnd(got, want)
			})
			if t.Failed() {
				return
			}
		}
	}
}

// Each status has a text that must not be taken for the io.EOF of a good end.
func TestSessionReturnsEveryStatus(t *testing.T) {
	for want := codes.Canceled; want <= codes.Unauthenticated && !t.Failed(); want++ {
		p := &peer{what: "a server that fails after the half-close", script: func(p *peer) error {
			if err := p.hearAll(p.echo); err != nil {
				return err
			}
			return status.Error(want, "EOF")
		}}
		on(t, p, func(s *stage) {
			got := s.hold(caller{lines: lines})
			s.wantReplies(got, []string{"echo: hello", "echo: ", "echo: bye"})
			s.wantEnd(got, want)
		})
	}
}

// waits are the places in which an end may find a session.
func waits() []struct {
	peer   *peer
	caller caller
} {
	return []struct {
		peer   *peer
		caller caller
	}{
		{&peer{what: "a silent server, while in stays open,", script: (*peer).untilGone}, caller{lines: lines, stays: true}},
		{&peer{what: "a server that hears all, and then stays,", script: func(p *peer) error {
			if err := p.hearAll(p.echo); err != nil {
				return err
			}
			return p.untilGone()
		}}, caller{lines: lines}},
		{&peer{what: "a server that does not listen, while Send is blocked,", script: (*peer).untilGone}, caller{lines: long(300)}},
	}
}

// wantOver checks that a session ended within a second of what ended it.
func (s *stage) wantOver(got outcome, what string, want codes.Code) {
	s.Helper()
	switch late := got.took - soon; {
	case got.err == nil:
		s.Fatalf("%s after %v of a session with %s and session returned no error, want code %v", what, soon, s.peer.what, want)
	case code(got.err) != want:
		s.Fatalf("%s after %v of a session with %s and session returned code %v (%v), want %v", what, soon, s.peer.what, code(got.err), got.err, want)
	case late < 0:
		s.Fatalf("session with %s returned code %v after %v, before there was a reason", s.peer.what, want, got.took)
	case late > toReturn+lab.Latency:
		s.Fatalf("%s after %v of a session with %s and session returned %v later, want at most %v", what, soon, s.peer.what, late, toReturn)
	}
}

func TestSessionEndsWhenItsCallerCancels(t *testing.T) {
	for _, wait := range waits() {
		on(t, wait.peer, func(s *stage) {
			wait.caller.cancels = true
			s.wantOver(s.hold(wait.caller), "the caller cancelled", codes.Canceled)
		})
		if t.Failed() {
			return
		}
	}
}

// The reader of out takes one reply and leaves; the next ones wait for it. The
// chat goes on, or the server ends it with OK.
func TestSessionEndsWhenItsReaderHasLeftAndItsCallerCancels(t *testing.T) {
	for _, end := range []struct {
		what string
		do   func(*peer) error
	}{
		{"stays", (*peer).untilGone},
		{"ends the chat with OK", func(*peer) error { return nil }},
	} {
		for _, n := range []int{2, 50} {
			p := &peer{what: fmt.Sprintf("a server that says %d lines and %s, while the reader of out takes one and leaves,", n, end.what)}
			p.script = func(p *peer) error {
				if err := p.say(long(n)...); err != nil {
					return err
				}
				return end.do(p)
			}
			on(t, p, func(s *stage) {
				s.wantOver(s.hold(caller{stays: true, reads: 1, cancels: true}), "the caller cancelled", codes.Canceled)
			})
			if t.Failed() {
				return
			}
		}
	}
}

func TestSessionLeavesToTheServerWhatNobodyReads(t *testing.T) {
	want := long(1000)
	p := &peer{what: "a server that has 1,000 replies of 1 KB, while nobody reads out for an hour,"}
	p.script = func(p *peer) error { return p.say(want...) }
	on(t, p, func(s *stage) {
		got := s.hold(caller{stays: true, away: time.Hour, limit: 2 * time.Hour})
		if got.ahead > inHand {
			s.Fatalf("session with %s had %d replies from Recv that nobody had taken, want at most %d", p.what, got.ahead, inHand)
		}
		s.wantReplies(got, want)
		s.wantEnd(got, codes.OK)
	})
}

func TestSessionEndsAtTheDeadlineOfItsCaller(t *testing.T) {
	for _, wait := range append(waits(), struct {
		peer   *peer
		caller caller
	}{&peer{what: "a server that says two lines, while nobody reads out,", script: func(p *peer) error {
		p.say("one", "two")
		return p.untilGone()
	}}, caller{stays: true, away: time.Hour}}) {
		on(t, wait.peer, func(s *stage) {
			wait.caller.deadline = true
			s.wantOver(s.hold(wait.caller), "the caller's deadline passed", codes.DeadlineExceeded)
		})
		if t.Failed() {
			return
		}
	}
}

func TestSessionEndsWhenTheConnectionBreaks(t *testing.T) {
	for _, end := range []struct {
		what string
		do   func(*stage)
	}{
		{"the network was cut", func(s *stage) { s.link.Cut() }},
		{"the server closed the connection", func(s *stage) { s.srv.Stop() }},
	} {
		for _, wait := range waits() {
			on(t, wait.peer, func(s *stage) {
				wait.caller.end = end.do
				s.wantOver(s.hold(wait.caller), end.what, codes.Unavailable)
			})
			if t.Failed() {
				return
			}
		}
	}
}

// Even where there is no chat, out has a reader.
func TestSessionClosesOutWithoutAStream(t *testing.T) {
	for _, tt := range []struct {
		what string
		do   func(*stage)
		want codes.Code
	}{
		{"a server that cannot be reached", func(s *stage) { s.link.Cut(); time.Sleep(time.Second) }, codes.Unavailable},
		{"a caller that has cancelled before", func(s *stage) {
			var stop context.CancelFunc
			s.ctx, stop = context.WithCancel(s.ctx)
			stop()
		}, codes.Canceled},
	} {
		on(t, &peer{what: tt.what, script: (*peer).untilGone}, func(s *stage) {
			got := s.hold(caller{lines: lines, stays: true, before: tt.do})
			if code(got.err) != tt.want || got.took > toReturn {
				s.Fatalf("session with %s returned code %v (%v) after %v, want %v within %v", tt.what, code(got.err), got.err, got.took, tt.want, toReturn)
			}
		})
		if t.Failed() {
			return
		}
	}
}
