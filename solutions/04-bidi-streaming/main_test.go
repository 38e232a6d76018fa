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
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// A peer is a server with a script, which remembers what it saw.
type peer struct {
	feedv1.UnimplementedFeedServiceServer
	what   string // "a server that echoes each line"
	script func(*peer) error
	stream chatServer

	mu       sync.Mutex
	heard    []string
	end      error // what ended its Recv; nil as long as nothing has
	said     int
	returned time.Time // zero as long as the handler runs
	result   error     // what the handler returned
}

// Chat plays the script on the first stream and refuses any other.
func (p *peer) Chat(stream chatServer) (err error) {
	first := false
	p.note(func() {
		if first = p.stream == nil; first {
			p.stream = stream
		}
	})
	if !first {
		return status.Error(codes.AlreadyExists, "a chat is one stream")
	}
	defer p.note(func() { p.returned, p.result = time.Now(), err })
	return p.script(p)
}

func (p *peer) note(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// hear returns the next line.
func (p *peer) hear() (string, error) {
	msg, err := p.stream.Recv()
	p.note(func() {
		if err != nil {
			p.end = err
		} else {
			p.heard = append(p.heard, msg.GetText())
		}
	})
	return msg.GetText(), err
}

// hearAll hands each line to f until the half-close.
func (p *peer) hearAll(f func(line string) error) error {
	for {
		line, err := p.hear()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(line); err != nil {
			return err
		}
	}
}

func (p *peer) say(text string) error { return p.sayAs("server", text) }

func (p *peer) sayAs(from, text string) error {
	err := p.stream.Send(&feedv1.ChatMessage{From: from, Text: text})
	if err == nil {
		p.note(func() { p.said++ })
	}
	return err
}

func (p *peer) echo(line string) error { return p.say("echo: " + line) }

// untilGone keeps the stream open until the client leaves.
func (p *peer) untilGone() error {
	<-p.stream.Context().Done()
	return p.stream.Context().Err()
}

// wait takes its time before what comes next.
func (p *peer) wait(d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-p.stream.Context().Done():
		return p.stream.Context().Err()
	}
}

// view is what the server saw so far.
func (p *peer) view(lines int) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	closed := "has seen no half-close"
	if errors.Is(p.end, io.EOF) {
		closed = "has seen the half-close"
	}
	handler := "its handler still runs"
	switch {
	case p.stream == nil:
		handler = "its handler was not called"
	case !p.returned.IsZero():
		handler = "its handler has returned"
	}
	return fmt.Sprintf("the server has received %d of %d lines, %s, has sent %s, and %s", len(p.heard), lines, closed, count(p.said), handler)
}

func count(replies int) string {
	if replies == 1 {
		return "1 reply"
	}
	return fmt.Sprintf("%d replies", replies)
}

// converse runs chat with p. When chat does not return in time, it also tells how
// far the server is.
func converse(ctx context.Context, l *lab.Lab, p *peer, client feedv1.FeedServiceClient, lines []string, limit time.Duration) (replies []string, err error) {
	l.Helper()
	returned := false
	defer func() {
		if !returned {
			l.Errorf("meanwhile %s", p.view(len(lines)))
		}
	}()
	l.Call("chat with "+p.what, limit, func() { replies, err = chat(ctx, client, lines) })
	returned = true
	return replies, err
}

// difference shows two short lists, or where two long ones part.
func difference(got, want []string) string {
	if len(got) <= 20 && len(want) <= 20 {
		return fmt.Sprintf("\n got %.100q\nwant %.100q", got, want)
	}
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	return fmt.Sprintf(" the first %d are right, and then\n got %.100q\nwant %.100q", i, got[i:min(i+3, len(got))], want[i:min(i+3, len(want))])
}

// What README.md allows.
const (
	toSend   = 50 * time.Millisecond // for all lines and the half-close, where Send does not block
	toReturn = time.Second           // after whatever ends the chat
)

// wantWhole checks a chat in which the server hears all, says want, and ends
// the stream with OK.
func wantWhole(t *testing.T, p *peer, lines, want []string, limit time.Duration) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(p)
		link.Mark()
		start := time.Now()
		replies, err := converse(l.Context(), l, p, client, lines, limit)
		took := time.Since(start)
		wantOne(l)
		p.mu.Lock()
		heard, end, returned := p.heard, p.end, p.returned
		p.mu.Unlock()
		if errors.Is(end, io.EOF) && !slices.Equal(heard, lines) {
			l.Fatalf("chat with %s sent %d lines, want %d:%s", p.what, len(heard), len(lines), difference(heard, lines))
		}
		wantOK(l, p, took, replies, err, want)
		switch {
		case returned.IsZero():
			l.Fatalf("chat with %s returned after %v, before the server had ended the stream: "+
				"the client half-closes after its last line, and the server's end is what chat waits for", p.what, took)
		case !errors.Is(end, io.EOF):
			l.Fatalf("chat with %s never half-closed the stream: after %d lines the server's Recv returned %v, want io.EOF", p.what, len(heard), end)
		}
		if len(strings.Join(lines, "")) > lab.Window {
			return // Send blocks for as long as the server wants
		}
		for _, f := range link.Frames() {
			if f.From == lab.Client && f.EndStream && f.At > toSend {
				l.Errorf("chat with %s half-closed the stream %v after it was called, want at most %v: "+
					"the lines and the half-close need not wait for the server", p.what, f.At, toSend)
			}
		}
	}, lab.Lasts(limit+time.Minute))
}

func wantOne(l *lab.Lab) {
	l.Helper()
	if n := len(l.RPCs()); n != 1 {
		l.Fatalf("chat opened %d streams, want one", n)
	}
}

// wantOK checks what chat returned when the server ended the stream with OK.
func wantOK(l *lab.Lab, p *peer, took time.Duration, replies []string, err error, want []string) {
	l.Helper()
	wantOne(l)
	p.mu.Lock()
	ended := !p.returned.IsZero() && p.result == nil
	p.mu.Unlock()
	switch {
	case err != nil && ended:
		l.Fatalf("chat with %s returned the error %q after %v, want none: the server ended the stream with OK", p.what, err, took)
	case err != nil:
		l.Fatalf("chat with %s returned the error %q after %v, want none: "+
			"the server had not ended the stream, and the caller's context was alive, so chat itself gave up", p.what, err, took)
	case !slices.Equal(replies, want):
		l.Fatalf("chat with %s returned %s after %v, want %d:%s", p.what, count(len(replies)), took, len(want), difference(replies, want))
	}
	wantSoon(l, p)
}

// wantSoon checks that chat, which has just returned, did not stay on after
// the server's end had reached it.
func wantSoon(l *lab.Lab, p *peer) {
	l.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if late := time.Since(p.returned) - lab.Latency; !p.returned.IsZero() && late > toReturn {
		l.Fatalf("chat with %s returned %v after the server's end had reached it, want at most %v", p.what, late, toReturn)
	}
}

// wantError checks that chat returned an error with the code. A context's own
// error is as good as the status that gRPC makes of it.
func wantError(l *lab.Lab, what string, replies []string, err error, want codes.Code) {
	l.Helper()
	wantOne(l)
	got := status.Code(err)
	switch {
	case errors.Is(err, context.Canceled):
		got = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		got = codes.DeadlineExceeded
	}
	switch {
	case err == nil:
		l.Fatalf("%s, and chat returned %s and no error, want code %v", what, count(len(replies)), want)
	case got != want:
		l.Fatalf("%s, and chat returned code %v (%v), want %v", what, got, err, want)
	}
}

var lines = []string{"hello", "world", "bye"}

// long is more than a stream takes on when the server does not read.
func long() []string {
	all := make([]string, 300)
	for i := range all {
		all[i] = fmt.Sprintf("%04d", i) + strings.Repeat("x", 996)
	}
	return all
}

func TestChatReturnsAReplyForEachLine(t *testing.T) {
	wantWhole(t, &peer{what: "a server that echoes each line", script: func(p *peer) error {
		return p.hearAll(p.echo)
	}}, lines, []string{"echo: hello", "echo: world", "echo: bye"}, time.Minute)
}

func TestChatReturnsRepliesThatComeAfterTheHalfClose(t *testing.T) {
	wantWhole(t, &peer{what: "a server that answers after the half-close", script: func(p *peer) error {
		if err := p.hearAll(func(string) error { return nil }); err != nil {
			return err
		}
		for _, line := range p.heard {
			if err := p.echo(line); err != nil {
				return err
			}
		}
		return nil
	}}, lines, []string{"echo: hello", "echo: world", "echo: bye"}, time.Minute)
}

func TestChatReturnsTheGreetingOfAServerThatSpeaksFirst(t *testing.T) {
	wantWhole(t, &peer{what: "a server that speaks first", script: func(p *peer) error {
		if err := p.say("welcome"); err != nil {
			return err
		}
		return p.hearAll(p.echo)
	}}, lines, []string{"welcome", "echo: hello", "echo: world", "echo: bye"}, time.Minute)
}

func TestChatReturnsThreeRepliesForEachLine(t *testing.T) {
	wantWhole(t, &peer{what: "a server that sends three replies a line", script: func(p *peer) error {
		return p.hearAll(func(line string) error {
			for i := range 3 {
				if err := p.say(fmt.Sprintf("%s %d", line, i+1)); err != nil {
					return err
				}
			}
			return nil
		})
	}}, lines, []string{"hello 1", "hello 2", "hello 3", "world 1", "world 2", "world 3", "bye 1", "bye 2", "bye 3"}, time.Minute)
}

func TestChatEndsWellWithoutAReply(t *testing.T) {
	wantWhole(t, &peer{what: "a server that never answers", script: func(p *peer) error {
		if err := p.hearAll(func(string) error { return nil }); err != nil {
			return err
		}
		return p.wait(time.Second)
	}}, lines, nil, time.Minute)
}

func TestChatLeavesLinesAndRepliesAsTheyAre(t *testing.T) {
	wantWhole(t, &peer{what: "a server that repeats each line under three names", script: func(p *peer) error {
		return p.hearAll(func(line string) error {
			for _, from := range []string{"server", "client", ""} {
				if err := p.sayAs(from, line); err != nil {
					return err
				}
			}
			return nil
		})
	}}, []string{" a ", "", "a"}, []string{" a ", " a ", " a ", "", "", "", "a", "a", "a"}, time.Minute)
}

func TestChatReturnsABurstOfReplies(t *testing.T) {
	var burst []string
	for i := range 2000 {
		burst = append(burst, fmt.Sprint(i))
	}
	wantWhole(t, &peer{what: "a server that sends 2000 replies at once", script: func(p *peer) error {
		if err := p.hearAll(func(string) error { return nil }); err != nil {
			return err
		}
		for _, text := range burst {
			if err := p.say(text); err != nil {
				return err
			}
		}
		return nil
	}}, lines, burst, time.Minute)
}

const twoDays = 48 * time.Hour

func TestChatWaitsForAServerThatTakesItsTime(t *testing.T) {
	wantWhole(t, &peer{what: "a server that takes two days for each reply", script: func(p *peer) error {
		return p.hearAll(func(line string) error {
			if err := p.wait(twoDays); err != nil {
				return err
			}
			return p.echo(line)
		})
	}}, lines, []string{"echo: hello", "echo: world", "echo: bye"}, 4*twoDays)
}

func TestChatWaitsForAServerThatReadsLate(t *testing.T) {
	wantWhole(t, &peer{what: "a server that reads after two days, while Send is blocked,", script: func(p *peer) error {
		if err := p.wait(twoDays); err != nil {
			return err
		}
		if err := p.hearAll(func(string) error { return nil }); err != nil {
			return err
		}
		return p.say("noted")
	}}, long(), []string{"noted"}, 2*twoDays)
}

func TestChatHalfClosesWithoutALine(t *testing.T) {
	wantWhole(t, &peer{what: "a server that speaks first, and with no lines at all,", script: func(p *peer) error {
		if err := p.say("welcome"); err != nil {
			return err
		}
		return p.hearAll(p.echo)
	}}, nil, []string{"welcome"}, time.Minute)
}

// hearTwo answers two lines and then ends the stream in its own way.
func hearTwo(end func(*peer) error) func(*peer) error {
	return func(p *peer) error {
		for range 2 {
			if _, err := p.hear(); err != nil {
				return err
			}
			if err := p.say("noted"); err != nil {
				return err
			}
		}
		return end(p)
	}
}

// TestChatEndsWellWhenTheServerEndsEarly ends with OK: whether it has read all is its own
// affair.
func TestChatEndsWellWhenTheServerEndsEarly(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that ends the stream with OK after two lines", script: hearTwo(func(*peer) error { return nil })}
		client, _ := l.Connect(p)
		start := time.Now()
		replies, err := converse(l.Context(), l, p, client, lines, time.Minute)
		wantOK(l, p, time.Since(start), replies, err, []string{"noted", "noted"})
	})
}

func TestChatEndsWellWhenTheServerEndsWhileSendWaits(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that ends the stream with OK while Send is blocked", script: hearTwo(func(p *peer) error { return p.wait(time.Second) })}
		client, _ := l.Connect(p)
		start := time.Now()
		replies, err := converse(l.Context(), l, p, client, long(), time.Minute)
		wantOK(l, p, time.Since(start), replies, err, []string{"noted", "noted"})
	})
}

func closed(p *peer) error {
	if err := p.wait(time.Second); err != nil {
		return err
	}
	return status.Error(codes.FailedPrecondition, "the room is closed")
}

// wantStatus checks a chat that the server ends with an error.
func wantStatus(t *testing.T, when string, lines []string, want codes.Code, script func(*peer) error) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that fails " + when, script: script}
		client, _ := l.Connect(p)
		replies, err := converse(l.Context(), l, p, client, lines, time.Minute)
		wantError(l, fmt.Sprintf("the server failed with %v %s", want, when), replies, err, want)
		wantSoon(l, p)
	})
}

func TestChatReturnsTheStatusOfAServerThatFails(t *testing.T) {
	wantStatus(t, "after the half-close", lines, codes.FailedPrecondition, func(p *peer) error {
		if err := p.hearAll(p.echo); err != nil {
			return err
		}
		return closed(p)
	})
}

func TestChatReturnsTheStatusOfAServerThatFailsInTheMiddle(t *testing.T) {
	wantStatus(t, "after two lines", lines, codes.FailedPrecondition, hearTwo(closed))
}

func TestChatReturnsTheStatusWhenTheServerFailsWhileSendWaits(t *testing.T) {
	wantStatus(t, "while Send was blocked", long(), codes.FailedPrecondition, hearTwo(closed))
}

// TestChatReturnsEveryStatus has a text in each status that must not be taken
// for the io.EOF of a good end.
func TestChatReturnsEveryStatus(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated && !t.Failed(); code++ {
		wantStatus(t, `and the text "EOF"`, lines, code, func(p *peer) error {
			if err := p.hearAll(p.echo); err != nil {
				return err
			}
			return status.Error(code, "EOF")
		})
	}
}

// An end is what ends a chat after two seconds. It may change the context that
// chat is called with.
type end func(ctx context.Context, link *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc)

// wantEnd checks that chat ends with it: once while it waits for replies and
// once while its Send is blocked.
func wantEnd(t *testing.T, what string, want codes.Code, end end) {
	t.Helper()
	for _, tt := range []struct {
		what  string
		lines []string
		do    func(*peer) error
	}{
		{"a server that echoes and then stays", lines, func(p *peer) error {
			if err := p.hearAll(p.echo); err != nil {
				return err
			}
			return p.untilGone()
		}},
		{"a server that neither reads nor answers", long(), (*peer).untilGone},
	} {
		lab.Run(t, func(l *lab.Lab) {
			p := &peer{what: tt.what, script: tt.do}
			link := l.NewLink()
			srv := link.Serve(p)
			client := feedv1.NewFeedServiceClient(link.Dial())
			ctx, cancel := end(l.Context(), link, srv)
			defer cancel()
			start := time.Now()
			replies, err := converse(ctx, l, p, client, tt.lines, time.Minute)
			what := fmt.Sprintf("%s after 2s of a chat with %s", what, tt.what)
			if took := time.Since(start); took > 2*time.Second+lab.Latency+toReturn {
				l.Errorf("%s, and chat returned after %v, want at most %v later", what, took, toReturn)
			}
			wantError(l, what, replies, err, want)
		})
	}
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the caller cancelled", codes.Canceled, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(2*time.Second, cancel)
		return ctx, cancel
	})
}

// hangUp calls cancel when a reply has come, before the reply is returned.
type hangUp struct {
	grpc.ClientStream
	cancel func()
}

func (s hangUp) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		s.cancel()
	}
	return err
}

// TestACancelBetweenTwoRepliesIsNoGoodEnd cancels while chat is not in Recv: a
// loop that asks the context is the first to know.
func TestACancelBetweenTwoRepliesIsNoGoodEnd(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that echoes and then stays", script: func(p *peer) error {
			if err := p.hearAll(p.echo); err != nil {
				return err
			}
			return p.untilGone()
		}}
		link := l.NewLink()
		link.Serve(p)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		conn := link.Dial(grpc.WithChainStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn,
			method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			stream, err := open(ctx, desc, conn, method, opts...)
			if err != nil {
				return nil, err
			}
			return hangUp{stream, func() {
				cancel()
				l.Settle() // until the stream has heard of it: the next Send fails each time
			}}, nil
		}))
		replies, err := converse(ctx, l, p, feedv1.NewFeedServiceClient(conn), lines, time.Minute)
		wantError(l, "the caller cancelled when the first reply had come and the server went on", replies, err, codes.Canceled)
	})
}

func TestTheDeadlineOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the deadline passed", codes.DeadlineExceeded, func(ctx context.Context, _ *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, 2*time.Second)
	})
}

func TestChatEndsWhenTheConnectionBreaks(t *testing.T) {
	wantEnd(t, "the network was cut", codes.Unavailable, func(ctx context.Context, link *lab.Link, _ *grpc.Server) (context.Context, context.CancelFunc) {
		time.AfterFunc(2*time.Second, link.Cut)
		return context.WithCancel(ctx)
	})
	// The client's status then reads "error reading from server: EOF".
	wantEnd(t, "the server closed the connection", codes.Unavailable, func(ctx context.Context, _ *lab.Link, srv *grpc.Server) (context.Context, context.CancelFunc) {
		time.AfterFunc(2*time.Second, srv.Stop)
		return context.WithCancel(ctx)
	})
}

func TestChatSaysThatThereIsNoServer(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that cannot be reached", script: (*peer).untilGone}
		client, link := l.Connect(p)
		link.Cut()
		time.Sleep(time.Second) // the client has noticed
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		start := time.Now()
		replies, err := converse(ctx, l, p, client, lines, time.Minute)
		if took := time.Since(start); took > toReturn {
			l.Errorf("the server cannot be reached, and chat returned after %v, want at most %v", took, toReturn)
		}
		wantError(l, "the server cannot be reached", replies, err, codes.Unavailable)
	})
}
