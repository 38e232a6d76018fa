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

type chatClient = grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]

// soon is what README.md allows.
const soon = time.Second

// A bench serves the answer and sees who is here when a Chat returns.
type bench struct {
	l        *lab.Lab
	presence *presence
	link     *lab.Link
	srv      *grpc.Server
	returned chan ending
}

// An ending is what was seen as a Chat returned.
type ending struct {
	err   error
	at    time.Time
	names []string
}

func newBench(l *lab.Lab) *bench {
	b := &bench{l: l, presence: newPresence(), link: l.NewLink(), returned: make(chan ending, 1000)}
	b.srv = b.link.Serve(&server{presence: b.presence}, grpc.ChainStreamInterceptor(b.intercept))
	return b
}

func (b *bench) intercept(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, chat grpc.StreamHandler) (err error) {
	defer func() { b.returned <- ending{err, time.Now(), b.presence.names()} }()
	return chat(srv, &spy{ServerStream: stream, b: b})
}

// spy looks at each answer whether its client is here.
type spy struct {
	grpc.ServerStream
	b    *bench
	name string // of the first message
}

func (s *spy) RecvMsg(m any) error {
	err := s.ServerStream.RecvMsg(m)
	if err == nil && s.name == "" {
		s.name = m.(*feedv1.ChatMessage).GetFrom()
	}
	return err
}

func (s *spy) SendMsg(m any) error {
	if got := s.b.presence.names(); !slices.Contains(got, s.name) && !s.b.l.Failed() {
		s.b.l.Errorf("Chat sends an answer to %s, and names returned %q at that moment", s.name, got)
	}
	return s.ServerStream.SendMsg(m)
}

func (b *bench) client() feedv1.FeedServiceClient { return feedv1.NewFeedServiceClient(b.link.Dial()) }

// enter opens a chat under the name and waits for its first answer.
func (b *bench) enter(ctx context.Context, client feedv1.FeedServiceClient, name string) chatClient {
	b.l.Helper()
	stream, err := client.Chat(ctx)
	if err != nil {
		b.l.Fatal(err)
	}
	b.say(stream, name, "hello")
	return stream
}

// say sends a message and checks the answer.
func (b *bench) say(stream chatClient, name, text string) {
	b.l.Helper()
	if err := stream.Send(&feedv1.ChatMessage{From: name, Text: text}); err != nil {
		b.l.Fatalf("%q says %q, and the client's Send returned %v: Chat has ended the stream", name, text, err)
	}
	var answer *feedv1.ChatMessage
	var err error
	b.l.Call(fmt.Sprintf("the client's Recv, which waits for the answer to %q,", text), time.Minute, func() { answer, err = stream.Recv() })
	if err != nil || answer.GetText() != text {
		b.l.Fatalf("%q said %q, and Chat's answer was %q and %v, want the same text", name, text, answer.GetText(), err)
	}
}

// want checks who is here. The slice is the caller's.
func (b *bench) want(what string, names ...string) {
	b.l.Helper()
	got := b.presence.names()
	if !slices.Equal(got, names) {
		b.l.Fatalf("%s, and names returned %q, want %q", what, got, names)
	}
	for i := range got {
		got[i] = "changed by a caller of names"
	}
}

// ended waits for a Chat that must return soon, and checks who was here then.
// It returns what Chat did.
func (b *bench) ended(what string, names ...string) (err error) {
	b.l.Helper()
	began := time.Now()
	select {
	case end := <-b.returned:
		err = end.err
		if b.l.Failed() { // it panicked
			b.l.FailNow()
		}
		if took := end.at.Sub(began); took > soon {
			b.l.Fatalf("%s, and Chat returned %v later, want at most %v", what, took, soon)
		}
		if !slices.Equal(end.names, names) {
			b.l.Fatalf("%s, Chat returned %v, and names returned %q at that moment, want %q", what, end.err, end.names, names)
		}
	case <-time.After(time.Minute):
		b.l.Fatalf("%s, and a minute later Chat has not returned:\n%s", what, b.l.Stuck())
	}
	time.Sleep(time.Minute) // what comes late must not change it
	b.want(what+" a minute ago", names...)
	return err
}

func TestChatAnswersAndListsItsClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		client := b.client()
		b.want("nobody has joined")
		anna := b.enter(l.Context(), client, "anna")
		b.want("anna has joined", "anna")
		early := b.presence.names()
		carol := b.enter(l.Context(), client, "Carol Lee")
		ben := b.enter(l.Context(), client, "ben")
		all := []string{"Carol Lee", "anna", "ben"}
		b.want("anna, Carol Lee and ben have joined", all...)
		if !slices.Equal(early, []string{"anna"}) {
			l.Fatalf("names returned [\"anna\"], others joined, and now that slice holds %q", early)
		}
		for _, text := range []string{" one ", "", "three"} {
			b.say(anna, "anna", text)
		}
		b.say(ben, "benjamin", "I changed my name")
		b.want("ben's second message came from benjamin", all...)
		b.say(ben, "", "I have none")
		time.Sleep(48 * time.Hour)
		b.say(anna, "anna", "two days later")
		b.want("all have said more", all...)
		for _, s := range []chatClient{anna, ben, carol} {
			s.CloseSend()
			if _, err := s.Recv(); !errors.Is(err, io.EOF) {
				l.Fatalf("a client half-closed, and its Recv returned %v, want io.EOF", err)
			}
		}
		time.Sleep(soon)
		b.want("all have half-closed")
	}, lab.Lasts(72*time.Hour))
}

func TestChatAnswersAllBeforeItEnds(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		stream := b.enter(l.Context(), b.client(), "carol")
		// Chat can answer about 130 of these before the client reads (its window and
		// the write quota, 64 KiB each), so it sees the end with the others unanswered.
		text := func(i int) string { return fmt.Sprintf("%03d%s", i, strings.Repeat(".", 1000)) }
		for i := range 144 {
			if err := stream.Send(&feedv1.ChatMessage{From: "carol", Text: text(i)}); err != nil {
				l.Fatal(err)
			}
		}
		stream.CloseSend()
		time.Sleep(time.Second)
		for i := range 144 {
			if answer, err := stream.Recv(); err != nil || answer.GetText() != text(i) {
				l.Fatalf("the client sent 144 messages and half-closed, and did not get their 144 answers, in order, before the end")
			}
		}
		if err := b.ended("the client has half-closed"); err != nil {
			l.Errorf("the client has half-closed, and Chat returned %v, want nil", err)
		}
		stream.Recv()
	})
}

// The first client does not read.
func TestASlowClientHoldsUpNobody(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		client := b.client()
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		slow := b.enter(ctx, client, "slow")
		go func() { // until the cancel ends it
			for slow.Send(&feedv1.ChatMessage{From: "slow", Text: strings.Repeat("x", 1000)}) == nil {
			}
		}()
		time.Sleep(10 * time.Second)
		b.enter(ctx, client, "quick")
		b.want("slow and quick have joined", "quick", "slow")
	})
}

// An end is what ends a chat.
type end struct {
	what  string
	do    func(b *bench, stream chatClient, cancel func())
	lasts time.Duration // the deadline of the chat
	good  bool          // Chat returns nil
}

func ends() []end {
	return []end{
		{"the client half-closed", func(_ *bench, stream chatClient, _ func()) { stream.CloseSend() }, time.Hour, true},
		{"the client cancelled", func(_ *bench, _ chatClient, cancel func()) { cancel() }, time.Hour, false},
		{"the deadline passed", func(*bench, chatClient, func()) { time.Sleep(time.Minute) }, time.Minute, false},
		{"the client was killed", func(b *bench, _ chatClient, _ func()) { b.link.Cut() }, time.Hour, false},
		{"the server was stopped", func(b *bench, _ chatClient, _ func()) { b.srv.Stop() }, time.Hour, false},
	}
}

func TestNobodyIsListedAfterAnyEnding(t *testing.T) {
	for _, end := range ends() {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l)
			ctx, cancel := context.WithTimeout(l.Context(), end.lasts)
			defer cancel()
			stream := b.enter(ctx, b.client(), "carol")
			b.want("carol has joined", "carol")
			end.do(b, stream, cancel)
			if err := b.ended(end.what); end.good && err != nil {
				l.Errorf("%s, and Chat returned %v, want nil", end.what, err)
			}
			stream.Recv()
		})
	}
}

// The client does not read: Chat waits in Send when the end comes.
func TestNobodyIsListedWhenSendFails(t *testing.T) {
	for _, end := range ends()[1:] {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l)
			ctx, cancel := context.WithTimeout(l.Context(), end.lasts)
			defer cancel()
			stream := b.enter(ctx, b.client(), "carol")
			go func() { // until the end ends it
				for stream.Send(&feedv1.ChatMessage{From: "carol", Text: strings.Repeat("x", 1000)}) == nil {
				}
			}()
			time.Sleep(10 * time.Second)
			end.do(b, stream, cancel)
			b.ended(end.what + " while Chat was blocked in Send")
		})
	}
}

func TestANameStaysAsLongAsOneStreamOfIt(t *testing.T) {
	for _, first := range []string{"older", "newer"} {
		for _, end := range ends()[:2] {
			if t.Failed() {
				return
			}
			lab.Run(t, func(l *lab.Lab) {
				b := newBench(l)
				client := b.client()
				streams, cancels := map[string]chatClient{}, map[string]func(){}
				for _, which := range []string{"older", "newer"} {
					ctx, cancel := context.WithCancel(l.Context())
					defer cancel()
					streams[which], cancels[which] = b.enter(ctx, client, "carol"), cancel
					b.want("the "+which+" stream of carol's has joined", "carol")
				}
				end.do(b, streams[first], cancels[first])
				b.ended(end.what+" on the "+first+" of two streams of carol's", "carol")
				second := map[string]string{"older": "newer", "newer": "older"}[first]
				end.do(b, streams[second], cancels[second])
				b.ended(end.what + " on both streams of carol's")
			})
		}
	}
}

func TestAKilledClientComesBack(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		first := b.enter(l.Context(), b.client(), "carol")
		b.link.Blackhole() // the server does not learn of the kill
		time.Sleep(time.Minute)
		b.want("carol was killed, and the server cannot know", "carol")
		b.link.Heal()
		again := b.enter(l.Context(), b.client(), "carol")
		b.want("carol is back", "carol")
		b.link.Cut()
		time.Sleep(soon)
		b.want("carol was killed again, and both her connections are reset")
		first.Recv()
		again.Recv()
	})
}

func TestToLeaveTwiceCountsOnce(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{l: l, presence: newPresence()}
		join := func() (leave func()) {
			l.Call("join", time.Second, func() {
				var err error
				if leave, err = b.presence.join("carol"); err != nil || leave == nil {
					l.Fatalf("join returned error %v, and whether leave is nil: %v", err, leave == nil)
				}
			})
			return leave
		}
		first, second, third := join(), join(), join()
		b.want("three streams of carol's have joined", "carol")
		l.Call("leave", time.Second, func() { first(); first(); first() })
		b.want("one of three streams of carol's has left, three times", "carol")
		l.Call("leave", time.Second, second)
		b.want("two of three streams of carol's have left", "carol")
		l.Call("leave", time.Second, third)
		b.want("all streams of carol's have left")
		fourth := join()
		l.Call("leave", time.Second, func() { first(); second() })
		b.want("carol is back, and her old streams leave again", "carol")

		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for range 100 {
					if leave, err := b.presence.join("carol"); err == nil {
						var twice sync.WaitGroup
						twice.Go(leave)
						leave()
						twice.Wait()
					}
				}
			})
		}
		all.Wait()
		b.want("800 streams of carol's have come and gone at once, and one is here", "carol")
		l.Call("leave", time.Second, fourth)
		b.want("the last stream of carol's has left")
	})
}

func TestAnEmptyNameIsRefused(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		stream, err := b.client().Chat(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		stream.Send(&feedv1.ChatMessage{Text: "hello"})
		b.ended("the first message had no name")
		if _, err := stream.Recv(); status.Code(err) != codes.InvalidArgument {
			l.Errorf("the first message had no name, and the client's Recv returned %v, want InvalidArgument", err)
		}
	})
}

func TestWhoSaysNothingIsNotListed(t *testing.T) {
	for _, end := range ends() {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l)
			ctx, cancel := context.WithTimeout(l.Context(), end.lasts)
			defer cancel()
			stream, err := b.client().Chat(ctx)
			if err != nil {
				l.Fatal(err)
			}
			time.Sleep(time.Second)
			b.want("a client has opened a stream and said nothing")
			end.do(b, stream, cancel)
			what := end.what + " before the first message"
			if err := b.ended(what); end.good && err != nil {
				l.Errorf("%s, and Chat returned %v, want nil", what, err)
			}
			stream.Recv()
		})
	}
}

// 200 clients at once, some of which share a name, each with another end.
func TestManyComeAndGo(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		client := b.client()
		var all sync.WaitGroup
		for i := range 200 {
			all.Go(func() {
				ctx, cancel := context.WithCancel(l.Context())
				defer cancel()
				stream := b.enter(ctx, client, fmt.Sprint("client", i/2))
				if i%3 == 0 {
					stream.CloseSend()
					stream.Recv()
				}
			})
		}
		all.Wait()
		time.Sleep(soon)
		if got := b.presence.names(); len(got) > 0 {
			l.Errorf("200 clients came and went at once, and names still returns some of them")
		}
	})
}
