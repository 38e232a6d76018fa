package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// What README.md says.
const (
	beat = 15 * time.Second
	late = 100 * time.Millisecond // for a heartbeat
	soon = time.Second            // for an event, and for the return
)

// A topic is what the test delivers to the one stream that watches it.
type topic struct {
	name   string
	mu     sync.Mutex
	events chan *feedv1.Event
	last   int // the id of the last event
	err    error
	taken  bool // and not given back
}

func (p *topic) Events() <-chan *feedv1.Event { return p.events }

func (p *topic) Err() error { p.mu.Lock(); defer p.mu.Unlock(); return p.err }

func (p *topic) Close() { p.mu.Lock(); defer p.mu.Unlock(); p.taken = false }

func (p *topic) isTaken() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.taken }

// publish gives n more events to the stream, each with a body of that size.
func (p *topic) publish(n, size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for range n {
		p.last++
		p.events <- &feedv1.Event{Id: strconv.Itoa(p.last), Topic: p.name, Body: strings.Repeat("x", size)}
	}
}

// end ends the topic.
func (p *topic) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
	close(p.events)
}

// A send is one message that Watch sent.
type send struct {
	began, ended time.Time
	heartbeat    bool
	at           string // "answer.go:31"
}

// A bench serves the answer for one stream, and sees every Send of it. It is
// the answer's broker and the server's interceptor.
type bench struct {
	l     *lab.Lab
	topic *topic

	mu       sync.Mutex
	opened   time.Time
	during   func() // is called once, while a Send runs
	running  *send  // the Send that is being executed
	events   int    // how many were sent
	sends    []send
	returned time.Time // when Watch did; zero as long as it has not
	kept     bool      // its place, then
	left     string    // what still runs then
}

func newBench(l *lab.Lab, name string) *bench {
	return &bench{l: l, topic: &topic{name: name, events: make(chan *feedv1.Event, 1000)}}
}

func (b *bench) Subscribe(string) subscription {
	b.topic.mu.Lock()
	defer b.topic.mu.Unlock()
	b.topic.taken = true
	return b.topic
}

func (b *bench) intercept(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, watch grpc.StreamHandler) error {
	b.mu.Lock()
	b.opened = time.Now()
	b.mu.Unlock()
	// At a deadline grpc-go's timers and the client's reset tie. A context that
	// ends 1 ms earlier always says DeadlineExceeded.
	ctx, cancel := stream.Context(), func() {}
	if at, ok := ctx.Deadline(); ok {
		ctx, cancel = context.WithDeadline(ctx, at.Add(-time.Millisecond))
	}
	defer cancel()
	err := watch(srv, spy{stream, ctx, b})
	b.mu.Lock()
	b.returned, b.kept = time.Now(), b.topic.isTaken()
	if b.running != nil && !b.l.Failed() {
		b.l.Errorf("Watch returned, and its Send at %s was still running", b.running.at)
	}
	b.mu.Unlock()
	if !b.l.Failed() {
		left := b.l.Stuck() // takes 1 ns: what is about to end ends, and the stream's context lives
		b.mu.Lock()
		b.left = left
		b.mu.Unlock()
	}
	return err
}

// serve starts a server for the answer.
func (b *bench) serve(link *lab.Link) *grpc.Server {
	return link.Serve(&server{broker: b, beat: beat}, grpc.ChainStreamInterceptor(b.intercept))
}

type spy struct {
	grpc.ServerStream
	ctx context.Context
	b   *bench
}

func (s spy) Context() context.Context { return s.ctx }

func (s spy) SendMsg(m any) error {
	now := send{began: time.Now(), at: answerLine()}
	ev := m.(*feedv1.Event)
	now.heartbeat = proto.Equal(ev, heartbeat(s.b.topic.name))
	if during := s.b.begin(&now, ev); during != nil {
		during()
		s.b.l.Settle() // all others do what they can do while this Send runs
	}
	err := s.ServerStream.SendMsg(m)
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	now.ended = time.Now()
	s.b.running = nil
	if err == nil {
		s.b.sends = append(s.b.sends, now)
	}
	return err
}

func (b *bench) begin(now *send, ev *feedv1.Event) (during func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !now.heartbeat {
		b.events++
	}
	switch {
	case b.l.Failed(): // the first fault is enough
	case !b.returned.IsZero():
		b.l.Errorf("Watch has returned, and %v later a Send began at %s", now.began.Sub(b.returned), now.at)
	case b.running != nil:
		b.l.Errorf("two Sends ran at one time: the one at %s had not returned when the one at %s began", b.running.at, now.at)
	case !now.heartbeat && ev.GetId() != strconv.Itoa(b.events):
		b.l.Errorf("Watch sent {Id:%q Topic:%q Body:%.20q} at %s, want event %d or heartbeat(%q)", ev.GetId(), ev.GetTopic(), ev.GetBody(), now.at, b.events, b.topic.name)
	}
	b.running = now
	during, b.during = b.during, nil
	return during
}

// whileASendRuns lets f happen during the next Send.
func (b *bench) whileASendRuns(f func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.during = f
}

// stall lets the Send that runs last for two and a half beats, and n events
// come as it ends. Virtual time stops while somebody waits for a mutex: if that
// has begun at a beat, the Send ends there.
func (b *bench) stall(n int) {
	for _, d := range []time.Duration{beat, beat, beat / 2} {
		time.Sleep(d)
		b.l.Settle()
		if b.l.LockWanted() {
			break
		}
	}
	b.topic.publish(n, 1)
}

// answerLine is the line of answer.go that is being executed.
func answerLine() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	for {
		f, more := frames.Next()
		if filepath.Base(f.File) == "answer.go" {
			return fmt.Sprintf("answer.go:%d", f.Line)
		}
		if !more {
			return "answer.go"
		}
	}
}

// An outcome is how a stream ended for its client.
type outcome struct {
	events int // without heartbeats
	err    error
	at     time.Time
}

// follow reads the topic to its end in the background.
func follow(ctx context.Context, client feedv1.FeedServiceClient) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		var o outcome
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil && !proto.Equal(ev, heartbeat("alerts")) {
				o.events++
			}
		}
		o.err, o.at = err, time.Now()
		done <- o
	}()
	return done
}

// ended waits until a minute after something ended the stream, and checks that
// Watch has returned soon, given its place back and sent nothing since.
func (b *bench) ended(what string) {
	b.l.Helper()
	at := time.Now()
	time.Sleep(time.Minute)
	b.mu.Lock()
	returned, kept, left := b.returned, b.kept, b.left
	b.mu.Unlock()
	switch took := returned.Sub(at); {
	case returned.IsZero():
		b.l.Fatalf("%s, and a minute later Watch has not returned:\n%s", what, b.l.Stuck())
	case took > soon:
		b.l.Errorf("%s, and Watch returned %v later, want at most %v", what, took, soon)
	case kept:
		b.l.Errorf("%s, Watch returned, and its place at the broker is still taken", what)
	case strings.Contains(left, "answer.go") && !b.l.Failed():
		b.l.Errorf("%s, Watch returned, and a goroutine of it is left:\n%s", what, left)
	}
}

// play runs script against one stream of the answer. The script ends the
// topic.
func play(t *testing.T, script func(*bench), check func(*bench, outcome)) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l, "alerts")
		link := l.NewLink()
		b.serve(link)
		done := follow(l.Context(), feedv1.NewFeedServiceClient(link.Dial()))
		time.Sleep(time.Second / 2)
		script(b)
		b.ended("the topic ended")
		b.heartbeats()
		select {
		case o := <-done:
			check(b, o)
		default:
			l.Errorf("a minute after the end of the topic the client's stream has not ended")
		}
	}, lab.Lasts(30*time.Hour))
}

// wantOK checks that all events came before a good end.
func wantOK(events int) func(*bench, outcome) {
	return func(b *bench, o outcome) {
		b.l.Helper()
		if o.events != events || !errors.Is(o.err, io.EOF) {
			b.l.Errorf("the topic had %d events and ended well; the client got %d events and %v, want all and io.EOF", events, o.events, o.err)
		}
	}
}

// heartbeats checks that they came when, and only when, a beat had passed
// since the Send before, and returns how many.
func (b *bench) heartbeats() (n int) {
	b.l.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	before, what := send{began: b.opened, ended: b.opened}, "the stream"
	for i, s := range b.sends {
		if i > 0 {
			before, what = b.sends[i-1], "the Send before"
		}
		if !s.heartbeat {
			continue
		}
		n++
		if silent := s.began.Sub(before.began); silent < beat {
			b.l.Fatalf("a heartbeat was sent at %s %v after %s had begun, want %v of silence", s.at, silent, what, beat)
		}
		if silent := s.began.Sub(before.ended); silent > beat+late {
			b.l.Fatalf("a heartbeat was sent at %s after %v of silence, want it after %v", s.at, silent, beat)
		}
	}
	return n
}

func TestWatchSendsEventsInTimeAndEndsWithTheTopic(t *testing.T) {
	play(t, func(b *bench) {
		for i := range 3 {
			b.topic.publish(1, 1)
			time.Sleep(soon)
			b.heartbeats()
			if sent := b.count(); sent != i+1 {
				b.l.Fatalf("the broker delivered event %d, and after %v Watch had sent %d", i+1, soon, sent)
			}
		}
		b.topic.end(nil)
	}, wantOK(3))
}

func TestWatchSendsAllThatCameBeforeTheEnd(t *testing.T) {
	play(t, func(b *bench) {
		b.whileASendRuns(func() {
			b.topic.publish(99, 1)
			b.topic.end(nil)
		})
		b.topic.publish(1, 1)
	}, wantOK(100))
}

func TestWatchEndsAsItsTopicFails(t *testing.T) {
	play(t, func(b *bench) {
		b.topic.publish(1, 1)
		b.topic.end(status.Error(codes.FailedPrecondition, "the topic moved"))
	}, func(b *bench, o outcome) {
		if got := status.Convert(o.err); o.events != 1 || got.Code() != codes.FailedPrecondition || got.Message() != "the topic moved" {
			b.l.Errorf("the topic failed with FailedPrecondition, %q, after one event; the client got %d events and %v, want that event and that status", "the topic moved", o.events, o.err)
		}
	})
}

func TestAHeartbeatComesAfterEachBeatOfSilence(t *testing.T) {
	play(t, func(b *bench) {
		time.Sleep(time.Hour)
		if n := b.heartbeats(); n < 238 || n > 240 {
			b.l.Errorf("in an hour of silence Watch sent %d heartbeats, want one each %v", n, beat)
		}
		b.topic.end(nil)
	}, wantOK(0))
}

func TestAnEventPutsTheHeartbeatOff(t *testing.T) {
	play(t, func(b *bench) {
		for range 360 {
			b.topic.publish(1, 1)
			time.Sleep(10 * time.Second)
		}
		if n := b.heartbeats(); n > 0 {
			b.l.Fatalf("an event was sent each 10s, and Watch sent %d heartbeats in an hour, want none", n)
		}
		time.Sleep(6 * time.Second)
		if n := b.heartbeats(); n != 1 {
			b.l.Errorf("after the last event the stream was silent for 16s, and Watch sent %d heartbeats, want 1", n)
		}
		b.topic.end(nil)
	}, wantOK(360))
}

// An event comes while a heartbeat is being sent.
func TestOneSendAtATime(t *testing.T) {
	play(t, func(b *bench) {
		for range 10 {
			b.whileASendRuns(func() { b.topic.publish(1, 1) })
			time.Sleep(20 * time.Second)
		}
		b.topic.end(nil)
	}, wantOK(10))
}

func TestWatchReturnsAfterItsLastSend(t *testing.T) {
	for _, tt := range []struct {
		what string
		end  func(b *bench, link *lab.Link)
	}{
		{"the topic ended", func(b *bench, _ *lab.Link) { b.topic.end(nil) }},
		{"the topic failed", func(b *bench, _ *lab.Link) { b.topic.end(status.Error(codes.Aborted, "")) }},
		{"the network was cut", func(_ *bench, link *lab.Link) { link.Cut() }},
	} {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l, "alerts")
			link := l.NewLink()
			b.serve(link)
			client := feedv1.NewFeedServiceClient(link.Dial())
			b.whileASendRuns(func() { tt.end(b, link) })
			done := follow(l.Context(), client)
			time.Sleep(beat + lab.Latency + late) // a heartbeat is sent
			b.ended(tt.what + " during a heartbeat's Send")
			<-done
		})
	}
}

// The stream is ended from outside, at a silent topic and while a Send waits
// for a client that does not read.
func TestWatchEndsWithItsClient(t *testing.T) {
	const moment = time.Microsecond
	for _, tt := range []struct {
		what string
		end  func(cancel func(), link *lab.Link, srv *grpc.Server)
		lag  time.Duration // until the server learns of it
	}{
		{"the client cancelled", func(cancel func(), _ *lab.Link, _ *grpc.Server) { cancel() }, lab.Latency},
		{"the deadline passed", func(func(), *lab.Link, *grpc.Server) {}, lab.Latency + time.Second - time.Millisecond},
		{"the network was cut", func(_ func(), link *lab.Link, _ *grpc.Server) { link.Cut() }, 0},
		{"the server was stopped", func(_ func(), _ *lab.Link, srv *grpc.Server) { srv.Stop() }, 0},
	} {
		for _, at := range []struct {
			where  string
			events int // of 1,000 bytes: 131 fit into the window of a client that does not read
		}{{"at a silent topic", 0}, {"while a Send waited for the client", 200}} {
			if t.Failed() {
				return
			}
			lab.Run(t, func(l *lab.Lab) {
				b := newBench(l, "alerts")
				link := l.NewLink()
				srv := b.serve(link)
				client := feedv1.NewFeedServiceClient(link.Dial())
				const after = 40*time.Second + 13*time.Millisecond
				ctx, cancel := context.WithTimeout(l.Context(), after+time.Second)
				defer cancel()
				if _, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"}); err != nil {
					l.Fatal(err)
				}
				time.Sleep(after)
				if tt.lag > 0 {
					tt.end(cancel, link, srv)
					time.Sleep(tt.lag - moment)
				}
				b.topic.publish(at.events, 1000)
				time.Sleep(moment) // no longer: somebody may soon want the sender's lock
				if tt.lag == 0 {
					tt.end(cancel, link, srv)
				}
				b.ended(tt.what + " " + at.where)
			})
		}
	}
}

// A Send that lasts, because the client does not read: an event's, which ends
// in the very moment in which the beat is over, and a heartbeat's.
func TestALongSendMakesNoHeartbeatEarly(t *testing.T) {
	play(t, func(b *bench) {
		for range 20 {
			b.topic.publish(1, 1)
			time.Sleep(beat - time.Nanosecond)
			b.whileASendRuns(func() { time.Sleep(time.Nanosecond) })
			b.topic.publish(1, 1)
			time.Sleep(beat / 2)
			for n := range 2 {
				b.whileASendRuns(func() { b.stall(n) })
				time.Sleep(6*beat + beat/5) // off the heartbeats
			}
		}
		b.topic.end(nil)
	}, wantOK(60))
}

// Two streams of one server: the events of one are not the other's.
func TestEachStreamHasItsOwnSilence(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const beat = 25 * time.Second // not that of the other tests
		busy, silent := newBench(l, "busy"), newBench(l, "silent")
		link := l.NewLink()
		both := map[string]*bench{"busy": busy, "silent": silent}
		link.Serve(&server{broker: brokers(both), beat: beat}, grpc.ChainStreamInterceptor(
			func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, watch grpc.StreamHandler) error {
				return watch(srv, &router{spy: spy{ServerStream: stream, ctx: stream.Context()}, both: both})
			}))
		client := feedv1.NewFeedServiceClient(link.Dial())
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		for _, name := range []string{"busy", "silent"} {
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: name})
			if err != nil {
				l.Fatal(err)
			}
			go func() {
				for {
					if _, err := stream.Recv(); err != nil {
						return
					}
				}
			}()
		}
		time.Sleep(time.Second / 2)
		for range 60 {
			busy.topic.publish(1, 1)
			time.Sleep(10 * time.Second)
		}
		if n := silent.count(); n < 22 || n > 24 {
			l.Errorf("one stream had an event each 10s and the other none for 10m: the silent one was sent %d heartbeats, want one each %v", n, beat)
		}
		busy.whileASendRuns(func() {
			silent.topic.publish(1, 1)
			l.Settle()
			if l.LockWanted() && !l.Failed() {
				l.Errorf("while a Send of one stream ran, the other stream had an event to send and waited for a lock")
			}
		})
		busy.topic.publish(1, 1)
		time.Sleep(soon)
	}, lab.Lasts(time.Hour))
}

// brokers finds a topic's bench.
type brokers map[string]*bench

func (b brokers) Subscribe(topic string) subscription { return b[topic].Subscribe(topic) }

// router finds the bench of the topic that a stream watches.
type router struct {
	spy
	both map[string]*bench
}

func (r *router) RecvMsg(m any) error {
	err := r.ServerStream.RecvMsg(m)
	if err == nil {
		r.b = r.both[m.(*feedv1.WatchRequest).GetTopic()]
	}
	return err
}

func (b *bench) count() int { b.mu.Lock(); defer b.mu.Unlock(); return len(b.sends) }
