package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
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

const (
	soon = 100 * time.Millisecond // is how long Chat may take for whatever it has to do
	hold = 32                     // is how many events it may have taken out of C and not sent
	all  = 1 << 30
)

// A bench serves the answer's Chat and follows what it does.
type bench struct {
	l        *lab.Lab
	hub      hub
	srv      *grpc.Server
	link     *lab.Link
	conn     *grpc.ClientConn
	client   feedv1.FeedServiceClient
	chats    []*chat
	heard    func(line string) // is called before Recv returns a line, or io.EOF
	slow     string            // "Send" or "Close", which lets all others run
	settling atomic.Bool
	once     sync.Once // tells of calls at the same time

	mu        sync.Mutex
	seats     []*place // every subscription there was
	published map[string]int

	returning sync.Mutex
	err       error     // what the last handler returned,
	ended     time.Time // when,
	kept      []string  // and the topics of which a subscription was open then

	accepted, sent, running atomic.Int32 // events of all subscriptions; handlers
}

// A place is a subscription that the answer took.
type place struct {
	topic  string
	sub    *Subscription
	closed int
}

// on runs a test with a bench, and ends its chats.
func on(t *testing.T, test func(*bench)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{l: l, link: l.NewLink(), published: map[string]int{}, heard: func(string) {}}
		b.srv = b.link.Serve(followed{&server{broker: b}, b})
		b.conn = b.link.Dial()
		b.client = feedv1.NewFeedServiceClient(b.conn)
		test(b)
		b.cancel()
		time.Sleep(time.Second)
		for topic := range b.published { // a reader that was left behind is another test's
			b.hub.end(topic)
		}
	}, lab.Lasts(4*time.Hour))
}

func (b *bench) cancel() {
	for _, c := range b.chats {
		c.cancel()
	}
}

// settle lets all others run. Two that did so would wait for each other.
func (b *bench) settle(what string) {
	if b.slow == what && b.settling.CompareAndSwap(false, true) {
		b.l.Settle()
		b.settling.Store(false)
	}
}

func (b *bench) Subscribe(topic string) *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := &place{topic: topic, sub: b.hub.Subscribe(topic)}
	b.seats = append(b.seats, p)
	return &Subscription{C: p.sub.C, close: func() {
		b.settle("Close")
		b.mu.Lock()
		defer b.mu.Unlock()
		if p.closed++; p.closed == 1 {
			p.sub.Close()
		}
	}}
}

// followed is the answer's server, whose chats are counted.
type followed struct {
	*server
	b *bench
}

func (f followed) Chat(stream chatServer) error {
	f.b.running.Add(1)
	err := f.server.Chat(&grpc.GenericServerStream[feedv1.ChatMessage, feedv1.ChatMessage]{ServerStream: &tap{ServerStream: stream, b: f.b}})
	f.b.returning.Lock()
	defer f.b.returning.Unlock()
	f.b.err, f.b.ended = err, time.Now()
	f.b.kept, _ = f.b.open("") // of the last handler, that is of all
	f.b.running.Add(-1)        // from now on the test may look
	return err
}

// tap is the stream of a chat.
type tap struct {
	grpc.ServerStream
	b            *bench
	sends, recvs calls
}

// calls are for one goroutine at a time.
type calls struct {
	running atomic.Int32
	at      atomic.Value // string: the place of the last
}

func (t *tap) SendMsg(m any) error {
	defer t.b.alone("Send", &t.sends)()
	t.b.sent.Add(1)
	t.b.settle("Send")
	return t.ServerStream.SendMsg(m)
}

func (t *tap) RecvMsg(m any) error {
	defer t.b.alone("Recv", &t.recvs)()
	err := t.ServerStream.RecvMsg(m)
	switch {
	case err == nil:
		t.b.heard(m.(*feedv1.ChatMessage).GetText())
	case errors.Is(err, io.EOF):
		t.b.heard("io.EOF")
	}
	return err
}

// alone fails the test where a call begins before another one has returned.
func (b *bench) alone(what string, c *calls) (returned func()) {
	at := line()
	if c.running.Add(1) > 1 {
		b.once.Do(func() {
			b.l.Errorf("Chat called %s at %s while its call at %s had not returned: that is for one goroutine at a time", what, at, c.at.Load())
		})
	}
	c.at.Store(at)
	return func() { c.running.Add(-1) }
}

// line is the line of the answer that is being executed.
func line() string {
	for i := 1; ; i++ {
		_, file, n, ok := runtime.Caller(i)
		if !ok || strings.HasSuffix(file, "answer.go") {
			return fmt.Sprintf("answer.go:%d", n)
		}
	}
}

// open returns the topics of the open subscriptions and how many there ever
// were, of one topic or of all.
func (b *bench) open(topic string) (open []string, ever int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.seats {
		if topic == "" || p.topic == topic {
			ever++
			if p.closed == 0 {
				open = append(open, strconv.Quote(p.topic))
			}
		}
	}
	return open, ever
}

// wantOnce wants no subscription to have been closed twice.
func (b *bench) wantOnce(what string) {
	b.l.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.seats {
		if p.closed > 1 {
			b.l.Fatalf("%s, and Chat closed its subscription of %q twice", what, p.topic)
		}
	}
}

// stock returns how many accepted events are in C, and how many were taken out
// of it and not sent.
func (b *bench) stock() (inC, held int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.seats {
		inC += len(p.sub.C)
	}
	return inC, int(b.accepted.Load()-b.sent.Load()) - inC
}

// where says where the answer is.
func (b *bench) where() string {
	if b.running.Load() == 0 {
		inC, held := b.stock()
		return fmt.Sprintf("Chat had returned: %v; %d were still in C, %d had been taken out of C and not sent", b.err, inC, held)
	}
	return "Chat is " + strings.ReplaceAll(b.l.Stuck(), "\n", ", and ")
}

// event is event n of a topic. Every third has no body, and those of "big" are
// more than Send takes while nobody reads.
func event(topic string, n int) *feedv1.Event {
	body := fmt.Sprintf("event %d of %s", n, topic)
	if topic == "big" {
		body += strings.Repeat(".", 1000)
	} else if n%3 == 2 {
		body = ""
	}
	return &feedv1.Event{Topic: topic, Body: body}
}

// offer publishes n more events of each topic, and returns a topic of which
// one found no subscription.
func (b *bench) offer(n int, topics ...string) (refused string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range n * len(topics) {
		topic := topics[i%len(topics)]
		if got := b.hub.publish(event(topic, b.published[topic]+1)); got > 0 {
			b.published[topic]++
			b.accepted.Add(int32(got))
		} else {
			refused = topic
		}
	}
	return refused
}

// publish is an offer to those who have joined.
func (b *bench) publish(n int, topics ...string) {
	b.l.Helper()
	if topic := b.offer(n, topics...); topic != "" {
		b.l.Fatalf("a client has joined %q, and the broker has no open subscription: %s", topic, b.where())
	}
}

// offerAt makes an offer when Recv is about to return a line.
func (b *bench) offerAt(line string, n int, topics ...string) {
	b.heard = func(heard string) {
		if heard == line {
			b.offer(n, topics...)
		}
	}
}

// A chat is a client's end.
type chat struct {
	*bench
	stream grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]
	ctx    context.Context
	cancel context.CancelFunc
	said   string
	next   map[string]int  // event of a topic that is joined
	left   map[string]bool // topics of which old events may come
}

func (b *bench) enter(topics ...string) *chat {
	b.l.Helper()
	c := &chat{bench: b, next: map[string]int{}, left: map[string]bool{}}
	b.chats = append(b.chats, c)
	c.ctx, c.cancel = context.WithTimeout(b.l.Context(), 90*time.Minute)
	var err error
	if c.stream, err = b.client.Chat(c.ctx); err != nil {
		b.l.Fatal(err)
	}
	for _, topic := range topics {
		c.join(topic)
	}
	return c
}

// say sends lines at once, and gives Chat the time to do what they say.
func (c *chat) say(lines ...string) {
	c.l.Helper()
	for _, line := range lines {
		if err := c.stream.Send(&feedv1.ChatMessage{From: "client", Text: line}); err != nil {
			_, err = c.stream.Recv()
			c.l.Fatalf("the client had said nothing wrong, the last was %q, and its chat had ended: %v", c.said, err)
		}
		c.said = line
	}
	time.Sleep(soon)
}

// join says /join, and wants one more subscription.
func (c *chat) join(topic string) {
	c.l.Helper()
	c.next[topic] = c.published[topic] + 1
	c.tell("/join", topic, 1, 1)
}

// leave says /leave, and wants one subscription less.
func (c *chat) leave(topic string) {
	c.l.Helper()
	delete(c.next, topic)
	c.left[topic] = true
	c.tell("/leave", topic, 0, -1)
}

func (c *chat) tell(verb, topic string, subscribes, opens int) {
	c.l.Helper()
	open, ever := c.open(topic)
	c.say(verb + " " + topic)
	o, e := c.open(topic)
	if e-ever != subscribes || len(o)-len(open) != opens {
		c.l.Fatalf("the client said %q, and %v later Chat had subscribed %d times for it, want %d, and %d of the topic's subscriptions were open, want %d; %s",
			c.said, soon, e-ever, subscribes, len(o), len(open)+opens, c.where())
	}
	c.wantOnce(fmt.Sprintf("the client said %q", c.said))
}

// owed is how many events of the joined topics the client did not get.
func (c *chat) owed() (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for topic, next := range c.next {
		n += c.published[topic] + 1 - next
	}
	return n
}

// gets publishes n events of each topic, which the client wants soon.
func (c *chat) gets(n int, topics ...string) {
	c.l.Helper()
	c.publish(n, topics...)
	topic := topics[len(topics)-1]
	c.wants(fmt.Sprintf("event %d of %q was published", c.published[topic], topic), all, false)
}

// wants wants the client to get soon what it is owed, but at most n events,
// and then, if it ends, the end of the chat.
func (c *chat) wants(what string, n int, ends bool) {
	c.l.Helper()
	began := time.Now()
	var got atomic.Int32
	problem := make(chan string, 1)
	go func() { problem <- c.receive(&got, n, ends) }()
	select {
	case p := <-problem:
		if p != "" {
			c.l.Fatalf("%s, and %s", what, p)
		}
		return
	case <-time.After(soon):
	}
	what += fmt.Sprintf(", and %v later the client had %d of %d", soon, got.Load(), int(got.Load())+c.owed())
	if ends {
		c.l.Fatalf("%s, and its chat had not ended: %s", what, c.where())
	}
	what += ": " + c.where()
	for _, said := range []string{"", ", when it had said something"} {
		select {
		case p := <-problem:
			took := time.Since(began).Round(time.Millisecond)
			if p == "" {
				p = "the client had all"
			}
			c.l.Fatalf("%s; %s after %v%s: late by %v", what, p, took, said, took-soon)
		case <-time.After(time.Minute):
			c.stream.Send(&feedv1.ChatMessage{Text: "/leave nothing"})
		}
	}
	c.l.Fatalf("%s; and so it was 2m later", what)
}

// receive says what is wrong with what the client gets.
func (c *chat) receive(got *atomic.Int32, n int, ends bool) (problem string) {
	for got.Load() < int32(n) && (ends || c.owed() > 0) {
		msg, err := c.stream.Recv()
		owed, topic := c.owed(), msg.GetFrom()
		if errors.Is(err, io.EOF) && ends && owed == 0 {
			return ""
		}
		if err != nil {
			return fmt.Sprintf("the client got %d of %d, and then %v: %s", got.Load(), int(got.Load())+owed, err, c.where())
		}
		c.mu.Lock()
		next, last := c.next[topic], c.published[topic]
		is, want := fmt.Sprintf("%.40q", msg.GetText()), "nothing of this topic"
		if next > 0 && next <= last {
			want = fmt.Sprintf("%.40q", event(topic, next).GetBody())
		}
		if is == want {
			c.next[topic]++
			got.Add(1)
		}
		c.mu.Unlock()
		if is != want && !c.left[topic] {
			return fmt.Sprintf("message %d that the client got is %s of topic %q, want %s: each event once, and within a topic in order", got.Load()+1, is, topic, want)
		}
	}
	return ""
}

// wantGone wants everything of the chats to be gone soon after what happened.
func (b *bench) wantGone(what string) {
	b.l.Helper()
	since := time.Now()
	time.Sleep(soon)
	if b.running.Load() > 0 {
		where := b.where()
		if strings.Contains(where, "in Recv") {
			where += " (a Recv that waits for its client ends when Chat has returned)"
		}
		time.Sleep(time.Hour)
		later := "an hour later it still did"
		if b.running.Load() == 0 {
			later = fmt.Sprintf("it returned %v after the end", b.ended.Sub(since).Round(time.Millisecond))
		}
		b.l.Fatalf("%s, and %v later Chat still ran: %s; %s", what, soon, where, later)
	}
	if len(b.kept) > 0 {
		b.l.Fatalf("%s, and when Chat returned its subscription of %s was open", what, b.kept[0])
	}
	if open, _ := b.open(""); len(open) > 0 {
		b.l.Fatalf("%s, and when Chat had returned it subscribed to %s", what, open[0])
	}
	b.cancel()
	leaks := strings.Join(b.l.Leaks(), "\n") // looks a second later
	b.wantOnce(what)
	if leaks != "" {
		b.l.Fatalf("%s, and a second later %s", what, leaks)
	}
}

func TestAnEventGoesOutWhileTheClientIsSilent(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("alerts")
		for _, silence := range []time.Duration{1310 * time.Millisecond, 1470 * time.Millisecond, time.Hour} {
			time.Sleep(silence)
			c.gets(1, "alerts")
		}
	})
}

func TestAClientIsHeardWhileEventsGoOut(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("alerts", "silent", "two words")
		for i := range 5 {
			topic := "topic " + strconv.Itoa(i)
			c.gets(10, "alerts")
			c.join(topic)
			c.gets(2, topic)
			c.gets(1, "two words")
			time.Sleep(1310 * time.Millisecond)
			c.leave(topic)
		}
		c.leave("silent")
		c.gets(3, "alerts")
	})
}

// Each Send lets all others run.
func TestOneGoroutineSends(t *testing.T) {
	on(t, func(b *bench) {
		b.slow = "Send"
		b.enter("a", "b", "c").gets(3, "a", "b", "c")
	})
}

func TestAClientJoinsAHundredTopics(t *testing.T) {
	on(t, func(b *bench) {
		var topics []string
		for i := range 100 {
			topics = append(topics, "topic "+strconv.Itoa(i))
		}
		c := b.enter(topics...)
		c.gets(5, topics...)
		for _, topic := range topics[:50] {
			c.leave(topic)
		}
		c.gets(5, topics[50:]...)
	})
}

// What was accepted before the leave may come, or not.
func TestALeaveWhileEventsComeIsHeard(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("busy", "other")
		b.offerAt("/leave busy", 30, "busy")
		c.leave("busy")
		c.gets(1, "other")
		c.join("busy")
		for range 5 {
			c.say("/leave busy", "/join busy")
			if open, _ := b.open("busy"); len(open) != 1 {
				b.l.Fatalf("the client said \"/leave busy\" and \"/join busy\" at once, and %v later %d subscriptions of it were open, want 1, the new one; %s", soon, len(open), b.where())
			}
			c.next["busy"] = b.published["busy"] + 1
			c.gets(4, "busy", "other")
		}
	})
}

func TestToJoinTwiceIsToJoinOnce(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("alerts", "other")
		c.gets(1, "alerts")
		c.say("/join alerts")
		if open, ever := b.open("alerts"); len(open) != 1 || ever != 1 {
			b.l.Fatalf("the client joined \"alerts\" twice, and of %d subscriptions %d are open, want 1 of 1: the second is without effect", ever, len(open))
		}
		c.gets(3, "alerts")
		c.say("/leave nothing") // was not joined
		c.gets(3, "alerts")
		c.leave("alerts")
		c.say("/leave alerts")
		b.wantOnce("the client left a topic twice")
		c.gets(2, "other")
		c.join("alerts")
		c.gets(2, "alerts")
	})
}

func TestAChatOutlivesItsTopic(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("short", "long")
		b.publish(3, "short")
		b.hub.end("short")
		c.wants("events of \"short\" were accepted, and the topic ended", all, false)
		time.Sleep(time.Minute)
		c.gets(3, "long")
		c.say("/join short") // may subscribe anew
		c.say("/leave short")
		if open, _ := b.open("short"); len(open) > 0 {
			b.l.Fatalf("a topic had ended, the client said %q, and %d subscriptions of it were open", c.said, len(open))
		}
		c.join("short")
		c.gets(3, "long", "short")
		b.hub.end("short")
		c.cancel()
		b.wantGone("one topic of two had ended, and the client cancelled")
	})
}

func TestOtherClientsAreNotConcerned(t *testing.T) {
	on(t, func(b *bench) {
		for range 50 {
			b.enter("alerts", "deploys")
		}
		first, second := b.chats[0], b.chats[1]
		get := func(clients ...*chat) {
			b.publish(2, "alerts")
			for _, c := range clients {
				c.wants(fmt.Sprintf("events of \"alerts\" were accepted for %d clients", len(clients)), all, false)
			}
		}
		get(b.chats...)
		second.leave("alerts")
		get(first)
		second.join("alerts")
		first.cancel()
		time.Sleep(time.Second)
		get(b.chats[1:]...)
		b.cancel()
		b.wantGone("50 clients cancelled")
	})
}

// Events are accepted when the half-close is heard, and published after it.
func TestTheHalfCloseSendsWhatWasAccepted(t *testing.T) {
	for _, n := range []int{0, 1, 30, 250} {
		for _, topics := range [][]string{{}, {"a"}, {"a", "b", "c"}} {
			on(t, func(b *bench) {
				c := b.enter(topics...)
				b.offerAt("io.EOF", n, topics...)
				c.stream.CloseSend()
				go func() {
					for range 50 {
						time.Sleep(7 * time.Millisecond)
						b.offer(1, topics...)
					}
				}()
				what := fmt.Sprintf("a client of %d topics half-closed while events came", len(topics))
				c.wants(what, all, true)
				b.wantGone(what)
			})
		}
	}
}

// The client reads nothing for a minute, then a little, and then nothing for
// nine minutes. Another one reads.
func TestASlowClientLosesNothing(t *testing.T) {
	for _, closes := range []bool{false, true} {
		on(t, func(b *bench) {
			slow, other := b.enter("big"), b.enter("other")
			b.publish(250, "big")
			time.Sleep(time.Minute)
			_, held := b.stock()
			for range 3 {
				other.gets(1, "other")
			}
			what := "250 events of 1 KB were accepted for a client that read 64 of them in 10m"
			if closes {
				what += ", and half-closed after 1m"
				slow.stream.CloseSend()
				time.Sleep(soon)
			}
			slow.wants(what, 64, false)
			other.cancel()
			time.Sleep(9 * time.Minute)
			slow.wants(what, all, closes)
			if held > hold {
				b.l.Fatalf("250 events of 1 KB were accepted for a client that read nothing: Chat had taken %d out of C that it had not sent, want at most %d", held, hold)
			}
			if closes {
				b.wantGone(what)
			}
		})
	}
}

func TestAWrongCommandIsAnInvalidArgument(t *testing.T) {
	for _, text := range []string{"hello", "", "/join", "/join ", "/leave", "join alerts"} {
		on(t, func(b *bench) {
			b.slow = "Close"
			c := b.enter("a", "b")
			b.offerAt(text, 30, "a", "b")
			c.stream.Send(&feedv1.ChatMessage{Text: text})
			b.wantGone(fmt.Sprintf("the client said %q", text))
			if code := status.Code(b.err); code != codes.InvalidArgument {
				b.l.Fatalf("the client said %q, and Chat returned code %v (%v), want InvalidArgument", text, code, b.err)
			}
		})
	}
}

// ends tries an end while Chat waits, and while Send waits, before and after
// the half-close.
func ends(t *testing.T, what string, end func(c *chat)) {
	t.Helper()
	for _, wait := range []struct {
		what string
		do   func(c *chat)
	}{
		{"joined three silent topics and left one", func(*chat) {}},
		{"read nothing while 250 events of 1 KB were accepted, and went on to talk", func(c *chat) {
			c.publish(250, "big")
			c.say("/leave c", "/leave c") // when this is heard is up to the answer
		}},
		{"half-closed, and read 64 of 250 events of 1 KB", func(c *chat) {
			c.publish(250, "big")
			time.Sleep(time.Minute)
			c.stream.CloseSend()
			time.Sleep(soon)
			c.wants("a client half-closed", 64, false)
		}},
	} {
		on(t, func(b *bench) {
			b.slow = "Close"
			c := b.enter("big", "b", "c")
			c.leave("b")
			wait.do(c)
			time.Sleep(time.Hour)
			if b.running.Load() == 0 {
				b.l.Fatalf("a client %s, and Chat had returned before there was a reason: %v", wait.what, b.err)
			}
			end(c)
			whole := fmt.Sprintf("a client %s; then %s", wait.what, what)
			b.wantGone(whole)
			if b.err == nil {
				b.l.Fatalf("%s, and Chat returned nil, want an error: nil is a good end", whole)
			}
		})
	}
}
func TestChatEndsWhenItsClientCancels(t *testing.T) {
	ends(t, "it cancelled", func(c *chat) { c.cancel() })
}

func TestChatEndsAtTheDeadline(t *testing.T) {
	ends(t, "its deadline passed", func(c *chat) {
		at, _ := c.ctx.Deadline()
		time.Sleep(time.Until(at))
	})
}

func TestChatEndsWhenTheConnectionIsClosed(t *testing.T) {
	ends(t, "it closed its connection", func(c *chat) { c.conn.Close() })
}

func TestChatEndsWhenTheConnectionBreaks(t *testing.T) {
	ends(t, "the connection broke", func(c *chat) { c.link.Cut() })
}

func TestChatEndsWhenTheServerStops(t *testing.T) {
	ends(t, "the server was stopped", func(c *chat) { c.srv.Stop() })
}

// Recv has a line in hand while the client cancels.
func TestAJoinAtTheEndLeavesNothing(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("alerts")
		b.heard = func(string) { time.Sleep(soon / 2) }
		c.stream.Send(&feedv1.ChatMessage{Text: "/join late"})
		time.Sleep(soon / 4)
		c.cancel()
		b.wantGone("the client said \"/join late\" and cancelled")
	})
}
