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

// soon is how long Chat may take for whatever it has to do.
const soon = 100 * time.Millisecond

// A bench serves the answer's Chat and follows what it does.
type bench struct {
	l      *lab.Lab
	hub    hub
	srv    *grpc.Server
	link   *lab.Link
	conn   *grpc.ClientConn
	client feedv1.FeedServiceClient
	heard  func(line string) // is called before Recv returns a line, or io.EOF
	slowly bool              // Send lets all others run before it returns
	once   sync.Once         // tells of calls at the same time

	mu      sync.Mutex
	taken   []string // topics that were subscribed to
	open    map[string]int
	twice   string    // the topic of a subscription that was closed twice
	running int       // handlers
	err     error     // what the last of them returned
	ended   time.Time // and when
}

// on runs a test with a bench.
func on(t *testing.T, test func(*bench)) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{l: l, link: l.NewLink(), open: map[string]int{}, heard: func(string) {}}
		b.srv = b.link.Serve(followed{&server{broker: b}, b})
		b.conn = b.link.Dial()
		b.client = feedv1.NewFeedServiceClient(b.conn)
		test(b)
	}, lab.Lasts(4*time.Hour))
}

func (b *bench) Subscribe(topic string) *Subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.taken = append(b.taken, topic)
	b.open[topic]++
	sub, closed := b.hub.Subscribe(topic), false
	return &Subscription{C: sub.C, close: func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if closed {
			b.twice = topic
			return
		}
		closed = true
		b.open[topic]--
		sub.Close()
	}}
}

// followed is the answer's server, whose chats are counted.
type followed struct {
	*server
	b *bench
}

func (f followed) Chat(stream chatServer) error {
	f.b.mu.Lock()
	f.b.running++
	f.b.mu.Unlock()
	err := f.server.Chat(&grpc.GenericServerStream[feedv1.ChatMessage, feedv1.ChatMessage]{ServerStream: &tap{ServerStream: stream, b: f.b}})
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	f.b.running--
	f.b.err, f.b.ended = err, time.Now()
	return err
}

// tap is the stream of a chat, of which Send and Recv are each for one
// goroutine at a time.
type tap struct {
	grpc.ServerStream
	b              *bench
	sends, recvs   atomic.Int32
	sentAt, recvAt atomic.Value // string: the place of a call
}

func (t *tap) SendMsg(m any) error {
	defer t.b.alone("Send", &t.sends, &t.sentAt)()
	if t.b.slowly {
		t.b.l.Settle()
	}
	return t.ServerStream.SendMsg(m)
}

func (t *tap) RecvMsg(m any) error {
	defer t.b.alone("Recv", &t.recvs, &t.recvAt)()
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
func (b *bench) alone(what string, calls *atomic.Int32, at *atomic.Value) (returned func()) {
	place := place()
	if calls.Add(1) > 1 {
		b.once.Do(func() {
			b.l.Errorf("Chat called %s at %s while its call at %s had not returned: that is for one goroutine at a time", what, place, at.Load())
		})
	}
	at.Store(place)
	return func() { calls.Add(-1) }
}

// place is the line of the answer that is being executed.
func place() string {
	callers := make([]uintptr, 32)
	frames := runtime.CallersFrames(callers[:runtime.Callers(1, callers)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.File, "answer.go") {
			return fmt.Sprintf("answer.go:%d", f.Line)
		}
		if !more {
			return "a line outside of answer.go"
		}
	}
}

// state returns how many chats run and how many subscriptions are open.
func (b *bench) state() (running, open int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, n := range b.open {
		open += n
	}
	return b.running, open
}

// at returns how many subscriptions of a topic are open, and how many there
// ever were.
func (b *bench) at(topic string) (open, ever int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.taken {
		if t == topic {
			ever++
		}
	}
	return b.open[topic], ever
}

// A chat is a client's end.
type chat struct {
	*bench
	stream grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]
	ctx    context.Context
	cancel context.CancelFunc
	said   string
}

func (b *bench) enter(topics ...string) *chat {
	b.l.Helper()
	c := &chat{bench: b}
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

func (c *chat) say(text string) {
	c.l.Helper()
	if err := c.stream.Send(&feedv1.ChatMessage{From: "client", Text: text}); err != nil {
		_, err = c.stream.Recv()
		c.l.Fatalf("the client had said nothing wrong, the last was %q, and its chat had ended: %v", c.said, err)
	}
	c.said = text
	time.Sleep(soon)
}

// join says /join, and wants one more subscription.
func (c *chat) join(topic string) {
	c.l.Helper()
	open, ever := c.at(topic)
	c.say("/join " + topic)
	if o, e := c.at(topic); o != open+1 || e != ever+1 {
		c.l.Fatalf("the client said %q, and %v later Chat had subscribed %d times for it, want once; %s", c.said, soon, e-ever, c.where())
	}
}

// leave says /leave, and wants one subscription less.
func (c *chat) leave(topic string) {
	c.l.Helper()
	open, ever := c.at(topic)
	c.say("/leave " + topic)
	if o, e := c.at(topic); o != open-1 || e != ever {
		c.l.Fatalf("the client said %q, and %v later %s; %s", c.said, soon,
			[]string{"its subscription was not closed", "there was one more subscription"}[min(e-ever, 1)], c.where())
	}
	c.wantOnce(fmt.Sprintf("the client said %q", c.said))
}

// wantOnce wants no subscription to have been closed twice.
func (b *bench) wantOnce(what string) {
	b.l.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.twice != "" {
		b.l.Fatalf("%s, and Chat closed its subscription of %q twice", what, b.twice)
	}
}

// where says where the answer is.
func (b *bench) where() string {
	if running, _ := b.state(); running == 0 {
		return fmt.Sprintf("Chat had returned: %v", b.err)
	}
	return "Chat is " + strings.ReplaceAll(b.l.Stuck(), "\n", ", and ")
}

// event is event n of a topic. Every third has no body.
func event(topic string, n int) *feedv1.Event {
	body := fmt.Sprintf("event %d of %s", n, topic)
	if n%3 == 2 {
		body = ""
	}
	return &feedv1.Event{Id: strconv.Itoa(n), Topic: topic, Body: body}
}

// wantEvents publishes events and wants each client of the topic to have them soon.
func (b *bench) wantEvents(topic string, from, to int, clients ...*chat) {
	b.l.Helper()
	for n := from; n <= to; n++ {
		if got := b.hub.publish(event(topic, n)); got != len(clients) {
			b.l.Fatalf("event %d of %q was published, and %d subscriptions accepted it, want one of each client that has joined, which is %d; %s", n, topic, got, len(clients), b.where())
		}
	}
	for _, c := range clients {
		for n := from; n <= to; n++ {
			c.wantNext(event(topic, n))
		}
	}
}

// wantNext wants the client to receive an event that was published now.
func (c *chat) wantNext(ev *feedv1.Event) {
	c.l.Helper()
	what := fmt.Sprintf("event %s of %q was published", ev.GetId(), ev.GetTopic())
	began := time.Now()
	var msg *feedv1.ChatMessage
	var err error
	got := make(chan time.Time, 1)
	go func() {
		msg, err = c.stream.Recv()
		got <- time.Now()
	}()
	select {
	case <-got:
	case <-time.After(soon):
		var at time.Time
		where := c.where()
		late := "an hour later the client still did not have it"
		select {
		case at = <-got:
			late = fmt.Sprintf("the client had it %v after the event, late by %v", at.Sub(began).Round(time.Millisecond), (at.Sub(began) - soon).Round(time.Millisecond))
		case <-time.After(time.Minute):
			c.stream.Send(&feedv1.ChatMessage{Text: "/leave nothing"})
			select {
			case at = <-got:
				late = fmt.Sprintf("the client had it %v after the event, when it had said something: late by %v", at.Sub(began).Round(time.Millisecond), (at.Sub(began) - soon).Round(time.Millisecond))
			case <-time.After(time.Hour):
			}
		}
		c.l.Fatalf("%s, and the client did not have it %v later: %s; %s", what, soon, where, late)
	}
	switch want := says(ev); {
	case err != nil:
		c.l.Fatalf("%s, and the client's Recv returned %v instead of it", what, err)
	case lab.Text(msg) != lab.Text(want):
		c.l.Fatalf("%s, and the client got %s instead of %s", what, lab.Text(msg), lab.Text(want))
	}
}

// release ends chats for a test that is not about their end.
func (b *bench) release(chats ...*chat) {
	for _, c := range chats {
		c.cancel()
	}
	time.Sleep(time.Second)
	for _, topic := range b.taken {
		b.hub.end(topic)
	}
}

// wantGone wants everything of the chats to be gone soon after what happened.
func (b *bench) wantGone(what string) {
	b.l.Helper()
	since := time.Now()
	time.Sleep(soon)
	if running, _ := b.state(); running > 0 {
		where := b.where()
		time.Sleep(time.Hour)
		later := "an hour later it still did"
		if running, _ := b.state(); running == 0 {
			later = fmt.Sprintf("it returned %v after the end", b.ended.Sub(since).Round(time.Millisecond))
		}
		b.l.Fatalf("%s, and %v later Chat still ran: %s; %s", what, soon, where, later)
	}
	_, open := b.state()
	if open > 0 {
		b.l.Fatalf("%s, and %v later Chat had returned, and %d subscriptions were open", what, soon, open)
	}
	leaks := strings.Join(b.l.Leaks(), "\n") // looks a second later
	b.wantOnce(what)
	if leaks != "" {
		b.l.Fatalf("%s, and a second later %s", what, leaks)
	}
}

func TestAnEventGoesOutWhileTheClientIsSilent(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("alerts")
		for i, silence := range []time.Duration{1310 * time.Millisecond, 1470 * time.Millisecond, time.Hour} {
			time.Sleep(silence)
			b.wantEvents("alerts", i+1, i+1, c)
		}
		b.release(c)
	})
}

func TestAClientIsHeardWhileEventsGoOut(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("alerts", "silent", "two words")
		for i := range 5 {
			b.wantEvents("alerts", 10*i, 10*i+9, c)
			topic := "topic " + strconv.Itoa(i)
			c.join(topic)
			b.wantEvents(topic, 1, 2, c)
			b.wantEvents("two words", i, i, c)
			time.Sleep(1310 * time.Millisecond)
			c.leave(topic)
			if n := b.hub.publish(event(topic, 3)); n != 0 {
				b.l.Fatalf("the client has left %q, and the broker has %d open subscriptions", topic, n)
			}
		}
		c.leave("silent")
		b.wantEvents("alerts", 100, 102, c)
		b.release(c)
	})
}

// Events of several topics at one instant, of which each Send lets all others run.
func TestOneGoroutineSends(t *testing.T) {
	on(t, func(b *bench) {
		b.slowly = true
		topics := []string{"a", "b", "c"}
		c := b.enter(topics...)
		c.wantAll(topics, 3)
		b.release(c)
	})
}

// wantAll publishes n events of each topic at one instant, and wants all, in
// order within each topic.
func (c *chat) wantAll(topics []string, n int) {
	c.l.Helper()
	for i := range n {
		for _, topic := range topics {
			if c.hub.publish(event(topic, i+1)) != 1 {
				c.l.Fatalf("the client has joined %q, and the broker has no open subscription", topic)
			}
		}
	}
	c.wantRest(fmt.Sprintf("%d events of each of %d topics were published at once", n, len(topics)), topics, n, false)
}

// wantRest wants the client to receive soon n events of each topic, in order
// within each topic, and after them, if it ends, the end of the chat.
func (c *chat) wantRest(what string, topics []string, n int, ends bool) {
	c.l.Helper()
	all := n * len(topics)
	var got atomic.Int32
	problem := make(chan string, 1)
	go func() {
		next := map[string]int{}
		for got.Load() < int32(all) || ends {
			msg, err := c.stream.Recv()
			switch topic := msg.GetFrom(); {
			case errors.Is(err, io.EOF) && got.Load() == int32(all) && ends:
				problem <- ""
				return
			case err != nil:
				problem <- fmt.Sprintf("the client got %d of %d, and then %v", got.Load(), all, err)
				return
			default:
				next[topic]++
				want := "no more of this topic"
				if next[topic] <= n {
					want = strconv.Quote(event(topic, next[topic]).GetBody())
				}
				if text := strconv.Quote(strings.TrimRight(msg.GetText(), "x")); text != want {
					problem <- fmt.Sprintf("message %d of the client is %s of topic %q, want %s: each event once, and within a topic in order", got.Load()+1, text, topic, want)
					return
				}
			}
			got.Add(1)
		}
		problem <- ""
	}()
	select {
	case p := <-problem:
		if p != "" {
			c.l.Fatalf("%s, and %s", what, p)
		}
	case <-time.After(soon):
		end := ""
		if ends {
			end = ", and its chat had not ended"
		}
		c.l.Fatalf("%s, and %v later the client had %d of %d%s: %s", what, soon, got.Load(), all, end, c.where())
	}
}

func TestAClientJoinsAHundredTopics(t *testing.T) {
	on(t, func(b *bench) {
		var topics []string
		for i := range 100 {
			topics = append(topics, "topic "+strconv.Itoa(i))
		}
		c := b.enter(topics...)
		c.wantAll(topics, 5)
		for _, topic := range topics[:50] {
			c.leave(topic)
		}
		c.wantAll(topics[50:], 5)
		b.release(c)
	})
}

// What was accepted before the leave may come, or not.
func TestALeaveWhileEventsComeIsHeard(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("busy", "other")
		b.publishAt("/leave busy", []string{"busy"}, 30)
		c.leave("busy")
		b.hub.publish(event("other", 1))
		var err error
		b.l.Call("30 events of \"busy\" were accepted, the client left it, and to receive one of \"other\"", soon, func() {
			for msg := new(feedv1.ChatMessage); err == nil && msg.GetFrom() != "other"; {
				msg, err = c.stream.Recv()
			}
		})
		if err != nil {
			b.l.Fatalf("30 events of \"busy\" were accepted, the client left it, and its Recv returned %v", err)
		}
		b.release(c)
	})
}

func TestToJoinTwiceIsToJoinOnce(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("alerts", "other")
		b.wantEvents("alerts", 1, 1, c)
		c.say("/join alerts")
		if open, ever := b.at("alerts"); open != 1 || ever != 1 {
			b.l.Fatalf("the client joined \"alerts\" twice, and of %d subscriptions %d are open, want 1 of 1: the second is without effect", ever, open)
		}
		b.wantEvents("alerts", 2, 4, c)
		for range 2 {
			c.say("/leave nothing") // was not joined
			b.wantEvents("alerts", 5, 6, c)
		}
		c.leave("alerts")
		c.say("/leave alerts")
		b.wantOnce("the client left a topic twice")
		b.wantEvents("other", 1, 2, c)
		c.join("alerts")
		b.wantEvents("alerts", 7, 8, c)
		b.release(c)
	})
}

func TestAChatOutlivesItsTopic(t *testing.T) {
	on(t, func(b *bench) {
		c := b.enter("short", "long")
		b.wantEvents("long", 1, 1, c)
		for n := range 3 {
			b.hub.publish(event("short", n))
		}
		b.hub.end("short")
		for n := range 3 {
			c.wantNext(event("short", n))
		}
		time.Sleep(time.Minute)
		b.wantEvents("long", 2, 4, c)
		c.say("/leave short")
		b.wantEvents("long", 5, 6, c)
		c.cancel()
		b.wantGone("one topic of two had ended, and the client cancelled")
	})
}

func TestOtherClientsAreNotConcerned(t *testing.T) {
	on(t, func(b *bench) {
		first, second := b.enter("alerts"), b.enter()
		second.join("alerts")
		b.wantEvents("alerts", 1, 2, first, second)
		second.leave("alerts")
		b.wantEvents("alerts", 3, 4, first)
		second.join("alerts")
		first.cancel()
		time.Sleep(time.Second)
		b.wantEvents("alerts", 5, 6, second)
		b.release(second)
	})
}

// Events are accepted at the very moment at which the half-close is heard.
func TestTheHalfCloseSendsWhatWasAccepted(t *testing.T) {
	for _, n := range []int{0, 1, 30, 250} {
		for _, topics := range [][]string{{}, {"a"}, {"a", "b", "c"}} {
			on(t, func(b *bench) {
				c := b.enter(topics...)
				b.publishAt("io.EOF", topics, n)
				c.halfClose(fmt.Sprintf("%d events of each of %d topics were accepted, and the client half-closed", n, len(topics)), topics, n)
			})
			if t.Failed() {
				return
			}
		}
	}
}

// publishAt publishes n events of each topic when Recv is about to return a line.
func (b *bench) publishAt(line string, topics []string, n int) {
	b.heard = func(heard string) {
		for i := 0; i < n && heard == line; i++ {
			for _, topic := range topics {
				b.hub.publish(event(topic, i+1))
			}
		}
	}
}

// halfClose half-closes, and wants n events of each topic, the end, and
// everything to be gone.
func (c *chat) halfClose(what string, topics []string, n int) {
	c.l.Helper()
	defer c.cancel()
	c.stream.CloseSend()
	c.wantRest(what, topics, n, true)
	c.cancel()
	c.wantGone(what)
}

// big publishes n events of 1 KB, all of which find room: more than Send takes
// while nobody reads.
func (b *bench) big(topic string, n int) {
	b.l.Helper()
	for i := range n {
		ev := event(topic, i+1)
		ev.Body += strings.Repeat("x", 1000)
		if b.hub.publish(ev) == 0 {
			b.l.Fatalf("a client has joined %q, and the broker has no open subscription or no room", topic)
		}
	}
}

// The client reads nothing for ten minutes. Another one reads.
func TestASlowClientLosesNothing(t *testing.T) {
	const n = 200
	for _, closes := range []bool{false, true} {
		on(t, func(b *bench) {
			slow, other := b.enter("slow"), b.enter("other")
			b.big("slow", n)
			time.Sleep(time.Minute)
			for n := range 3 {
				b.wantEvents("other", n, n, other)
			}
			what := fmt.Sprintf("%d events of 1 KB were accepted for a client that read nothing for 10m", n)
			if closes {
				what += ", and half-closed after 1m"
				slow.stream.CloseSend()
			}
			time.Sleep(9 * time.Minute)
			other.cancel()
			if closes {
				slow.halfClose(what, []string{"slow"}, n)
				return
			}
			slow.wantRest(what, []string{"slow"}, n, false)
			b.release(slow)
		})
		if t.Failed() {
			return
		}
	}
}

func TestAWrongCommandIsAnInvalidArgument(t *testing.T) {
	for _, text := range []string{"hello", "", "/join", "/join ", "/leave", "join alerts"} {
		on(t, func(b *bench) {
			c := b.enter("a", "b")
			defer c.cancel()
			b.publishAt(text, []string{"a", "b"}, 30)
			c.say(text)
			var err error
			b.l.Call(fmt.Sprintf("the client said %q, and its Recv", text), soon, func() {
				for err == nil { // events may come before
					_, err = c.stream.Recv()
				}
			})
			if status.Code(err) != codes.InvalidArgument {
				b.l.Fatalf("the client said %q, and its Recv returned code %v (%v), want InvalidArgument", text, status.Code(err), err)
			}
			c.cancel()
			b.wantGone(fmt.Sprintf("the client said %q", text))
		})
		if t.Failed() {
			return
		}
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
		{"read nothing while 200 events of 1 KB were accepted, and went on to talk", func(c *chat) {
			c.big("a", 200)
			c.say("/leave c") // when this is heard is up to the answer
			c.say("/leave c")
		}},
		{"read nothing while 200 events of 1 KB were accepted, and half-closed", func(c *chat) {
			c.big("a", 200)
			time.Sleep(time.Minute)
			c.stream.CloseSend()
		}},
	} {
		on(t, func(b *bench) {
			c := b.enter("a", "b", "c")
			defer c.cancel()
			c.leave("b")
			wait.do(c)
			time.Sleep(time.Hour)
			if running, _ := b.state(); running == 0 {
				b.l.Fatalf("a client %s, and Chat had returned before there was a reason: %v", wait.what, b.err)
			}
			end(c)
			go func() { // releases the client's stream
				for err := error(nil); err == nil; {
					_, err = c.stream.Recv()
				}
			}()
			time.AfterFunc(2*soon, c.cancel) // and this its context
			whole := fmt.Sprintf("a client %s; then %s", wait.what, what)
			b.wantGone(whole)
			if b.err == nil {
				b.l.Fatalf("%s, and Chat returned nil, want an error: nil is a good end", whole)
			}
		})
		if t.Failed() {
			return
		}
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

func TestFiftyClientsLeaveNothing(t *testing.T) {
	on(t, func(b *bench) {
		var all []*chat
		for range 50 {
			all = append(all, b.enter("alerts", "deploys"))
		}
		b.wantEvents("alerts", 1, 3, all...)
		for _, c := range all {
			c.cancel()
		}
		b.wantGone("50 clients cancelled")
	})
}
