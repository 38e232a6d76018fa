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
	returned bool
}

// Chat plays the script on the first stream and refuses any other.
func (p *peer) Chat(stream chatServer) error {
	first := false
	p.note(func() {
		if first = p.stream == nil; first {
			p.stream = stream
		}
	})
	if !first {
		return status.Error(codes.AlreadyExists, "a chat is one stream")
	}
	defer p.note(func() { p.returned = true })
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

func (p *peer) say(text string) error {
	err := p.stream.Send(&feedv1.ChatMessage{From: "server", Text: text})
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
	if p.returned {
		handler = "its handler has returned"
	}
	return fmt.Sprintf("the server has received %d of %d lines, %s, has sent %d replies, and %s", len(p.heard), lines, closed, p.said, handler)
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

// wantWhole checks a chat in which the server hears all, says want, and ends
// the stream with OK.
func wantWhole(t *testing.T, p *peer, lines, want []string, limit time.Duration) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(p)
		start := time.Now()
		replies, err := converse(l.Context(), l, p, client, lines, limit)
		took := time.Since(start)
		wantOK(l, p, took, replies, err, want)
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case !p.returned:
			l.Errorf("chat with %s returned after %v, before the server had ended the stream: "+
				"the client half-closes after its last line, and the server's end is what chat waits for", p.what, took)
		case !slices.Equal(p.heard, lines):
			l.Errorf("chat with %s sent the lines %q, want %q", p.what, p.heard, lines)
		case !errors.Is(p.end, io.EOF):
			l.Errorf("chat with %s never half-closed the stream: after %d lines the server's Recv returned %v, want io.EOF", p.what, len(p.heard), p.end)
		}
	}, lab.Lasts(limit+time.Minute))
}

// wantOK checks what chat returned when the server ended the stream with OK.
func wantOK(l *lab.Lab, p *peer, took time.Duration, replies []string, err error, want []string) {
	l.Helper()
	if n := len(l.RPCs()); n != 1 {
		l.Fatalf("chat opened %d streams, want one", n)
	}
	if err != nil {
		l.Fatalf("chat with %s returned the error %q after %v, want none: the server ended the stream with OK", p.what, err, took)
	}
	if !slices.Equal(replies, want) {
		l.Fatalf("chat with %s returned %d replies after %v, want %d:\n got %q\nwant %q", p.what, len(replies), took, len(want), replies, want)
	}
}

// wantError checks that chat returned an error with the code. A context's own
// error is as good as the status that gRPC makes of it.
func wantError(l *lab.Lab, what string, replies []string, err error, want codes.Code) {
	l.Helper()
	if n := len(l.RPCs()); n != 1 {
		l.Fatalf("chat opened %d streams, want one", n)
	}
	got := status.Code(err)
	switch {
	case errors.Is(err, context.Canceled):
		got = codes.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		got = codes.DeadlineExceeded
	}
	switch {
	case err == nil:
		l.Fatalf("%s, and chat returned %d replies and no error, want code %v", what, len(replies), want)
	case got != want:
		l.Fatalf("%s, and chat returned code %v (%v), want %v", what, got, err, want)
	}
}

var lines = []string{"hello", "world", "bye"}

// long is more than a stream takes on when the server does not read.
func long() []string {
	all := make([]string, 300)
	for i := range all {
		all[i] = strings.Repeat("x", 1000)
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

func TestChatWaitsForAServerThatTakesItsTime(t *testing.T) {
	wantWhole(t, &peer{what: "a server that takes an hour for each reply", script: func(p *peer) error {
		return p.hearAll(func(line string) error {
			if err := p.wait(time.Hour); err != nil {
				return err
			}
			return p.echo(line)
		})
	}}, lines, []string{"echo: hello", "echo: world", "echo: bye"}, 5*time.Hour)
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

func TestChatReturnsTheStatusOfAServerThatFails(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that fails after the half-close", script: func(p *peer) error {
			if err := p.hearAll(p.echo); err != nil {
				return err
			}
			return closed(p)
		}}
		client, _ := l.Connect(p)
		replies, err := converse(l.Context(), l, p, client, lines, time.Minute)
		wantError(l, "the server failed with FailedPrecondition after the half-close", replies, err, codes.FailedPrecondition)
	})
}

func TestChatReturnsTheStatusOfAServerThatFailsInTheMiddle(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that fails after two lines", script: hearTwo(closed)}
		client, _ := l.Connect(p)
		replies, err := converse(l.Context(), l, p, client, lines, time.Minute)
		wantError(l, "the server failed with FailedPrecondition after two lines", replies, err, codes.FailedPrecondition)
	})
}

func TestChatReturnsTheStatusWhenTheServerFailsWhileSendWaits(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		p := &peer{what: "a server that fails while Send is blocked", script: hearTwo(closed)}
		client, _ := l.Connect(p)
		replies, err := converse(l.Context(), l, p, client, long(), time.Minute)
		wantError(l, "the server failed with FailedPrecondition while Send was blocked", replies, err, codes.FailedPrecondition)
	})
}

// wantEnd checks that chat ends when something ends it after two seconds:
// once while it waits for replies and once while its Send is blocked.
func wantEnd(t *testing.T, what string, want codes.Code, end func(context.Context, *lab.Link) (context.Context, context.CancelFunc)) {
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
			client, link := l.Connect(p)
			ctx, cancel := end(l.Context(), link)
			defer cancel()
			start := time.Now()
			replies, err := converse(ctx, l, p, client, tt.lines, time.Minute)
			what := fmt.Sprintf("%s after 2s of a chat with %s", what, tt.what)
			if took := time.Since(start); took > 3*time.Second {
				l.Errorf("%s, and chat returned after %v", what, took)
			}
			wantError(l, what, replies, err, want)
		})
	}
}

func TestTheCancelOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the caller cancelled", codes.Canceled, func(ctx context.Context, _ *lab.Link) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(2*time.Second, cancel)
		return ctx, cancel
	})
}

func TestTheDeadlineOfTheCallerHolds(t *testing.T) {
	wantEnd(t, "the deadline passed", codes.DeadlineExceeded, func(ctx context.Context, _ *lab.Link) (context.Context, context.CancelFunc) {
		return context.WithTimeout(ctx, 2*time.Second)
	})
}

func TestChatEndsWhenTheNetworkDies(t *testing.T) {
	wantEnd(t, "the network was cut", codes.Unavailable, func(ctx context.Context, link *lab.Link) (context.Context, context.CancelFunc) {
		time.AfterFunc(2*time.Second, link.Cut)
		return context.WithCancel(ctx)
	})
}
