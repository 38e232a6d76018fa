package main

import (
	"context"
	"fmt"
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

func (b *bench) intercept(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, chat grpc.StreamHandler) error {
	err := chat(srv, stream)
	b.returned <- ending{err, time.Now(), b.presence.names()}
	return err
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
		b.l.Fatal(err)
	}
	var answer *feedv1.ChatMessage
	var err error
	b.l.Call("Recv of the client, which waits for Chat's answer", time.Minute, func() { answer, err = stream.Recv() })
	if err != nil || answer.GetText() != text {
		b.l.Fatalf("%s said %q, and Chat's answer was %q and %v, want the same text", name, text, answer.GetText(), err)
	}
}

// want checks who is here.
func (b *bench) want(what string, names ...string) {
	b.l.Helper()
	if got := b.presence.names(); !slices.Equal(got, names) {
		b.l.Fatalf("%s, and names returned %q, want %q", what, got, names)
	}
}

// ended waits for a Chat that must return soon, and checks who was here then.
func (b *bench) ended(what string, names ...string) {
	b.l.Helper()
	began := time.Now()
	select {
	case end := <-b.returned:
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
}

func TestChatAnswersAndListsItsClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l)
		client := b.client()
		b.want("nobody has joined")
		anna := b.enter(l.Context(), client, "anna")
		b.want("anna has joined", "anna")
		carol := b.enter(l.Context(), client, "carol")
		ben := b.enter(l.Context(), client, "ben")
		b.want("anna, carol and ben have joined", "anna", "ben", "carol")
		for _, text := range []string{"one", "", "three"} {
			b.say(anna, "anna", text)
		}
		b.want("anna has said more", "anna", "ben", "carol")
		b.say(ben, "benjamin", "I changed my name")
		b.want("ben's second message came from benjamin", "anna", "ben", "carol")
		for _, s := range []chatClient{anna, ben, carol} {
			s.CloseSend()
			if _, err := s.Recv(); err == nil || status.Code(err) == codes.OK {
				l.Fatalf("a client half-closed, and its Recv returned %v, want io.EOF", err)
			}
		}
		time.Sleep(soon)
		b.want("all have half-closed")
	})
}

// An end is what ends a chat.
type end struct {
	what string
	do   func(b *bench, stream chatClient, cancel func())
	// lasts is the deadline of the chat.
	lasts time.Duration
}

func ends() []end {
	return []end{
		{"the client half-closed", func(_ *bench, stream chatClient, _ func()) { stream.CloseSend() }, time.Hour},
		{"the client cancelled", func(_ *bench, _ chatClient, cancel func()) { cancel() }, time.Hour},
		{"the deadline passed", func(*bench, chatClient, func()) { time.Sleep(time.Minute) }, time.Minute},
		{"the client was killed", func(b *bench, _ chatClient, _ func()) { b.link.Cut() }, time.Hour},
		{"the server was stopped", func(b *bench, _ chatClient, _ func()) { b.srv.Stop() }, time.Hour},
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
			b.ended(end.what)
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
		p := newPresence()
		b := &bench{l: l, presence: p}
		var leave [2]func()
		for i := range leave {
			l.Call("join", time.Second, func() {
				var err error
				if leave[i], err = p.join("carol"); err != nil || leave[i] == nil {
					l.Fatalf("join returned error %v, and whether leave is nil: %v", err, leave[i] == nil)
				}
			})
		}
		b.want("carol has joined twice", "carol")
		l.Call("leave", time.Second, func() { leave[0](); leave[0]() })
		b.want("the first of two streams of carol's has left twice", "carol")
		l.Call("leave", time.Second, leave[1])
		b.want("both streams of carol's have left")
		l.Call("leave", time.Second, leave[0])
		l.Call("join", time.Second, func() { p.join("carol") })
		b.want("carol's streams have left, and a third one has joined", "carol")
		l.Call("leave", time.Second, leave[1])
		b.want("the second stream of carol's has left again, and a third one is here", "carol")
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
			b.ended(end.what + " before the first message")
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
