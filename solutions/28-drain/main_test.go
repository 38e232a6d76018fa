package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"weak"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const (
	budget = 20 * time.Second
	soon   = time.Second / 2  // what shutdown may take when there is nothing to wait for
	at     = time.Second / 10 // how exactly it keeps to its budget
	tidyUp = 490 * time.Millisecond
)

// drainedBefore is whether a shutdown of this process has drained its server.
var drainedBefore atomic.Bool

// A bench is a server that is shut down, and what its check knows of it.
type bench struct {
	*lab.Lab
	feedv1.UnimplementedFeedServiceServer
	link   *lab.Link
	srv    *grpc.Server
	client feedv1.FeedServiceClient
	ctx    context.Context

	draining chan struct{} // closed by the first drain
	quiet    chan struct{} // closed at the end, for those who are deaf
	release  func()

	mu      sync.Mutex
	start   time.Time       // of shutdown
	drains  []time.Duration // when drain was called, from then
	running map[string]int  // handlers, by topic

	returned string // what shutdown has returned, for a message
}

// newBench makes a server on a link of its own, and a client.
func newBench(l *lab.Lab, opts ...grpc.ServerOption) *bench {
	b := &bench{Lab: l, link: l.NewLink(), ctx: l.Context(), draining: make(chan struct{}), quiet: make(chan struct{}), running: map[string]int{}}
	b.release = sync.OnceFunc(func() { close(b.quiet) })
	b.srv = b.link.Serve(b, opts...)
	b.client = feedv1.NewFeedServiceClient(b.link.Dial())
	return b
}

// on runs body with a bench.
func on(t *testing.T, body func(*bench), opts ...grpc.ServerOption) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		var cancel context.CancelFunc
		b := newBench(l, opts...)
		defer b.release()
		b.ctx, cancel = context.WithCancel(l.Context())
		defer cancel()
		body(b)
		b.release()
		time.Sleep(time.Millisecond)
		if stuck := b.Stuck(); strings.Contains(stuck, "answer.go") {
			b.Fatalf("%s, and 1ms after that, and after the end of the last handler, something of it still runs:\n%s", b.returned, stuck)
		}
	}, lab.Lasts(24*time.Hour))
}

func (b *bench) drain() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.drains = append(b.drains, time.Since(b.start))
	if len(b.drains) == 1 {
		close(b.draining)
	}
}

func (b *bench) count(topic string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running[topic] += n
}

var errHandler = status.Error(codes.Aborted, "the status of the handler")

// Watch is a handler as its topic says.
func (b *bench) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	b.count(req.GetTopic(), 1)
	defer b.count(req.GetTopic(), -1)
	if err := stream.Send(&feedv1.Event{Id: "first"}); err != nil {
		return err
	}
	last := func(err error) error {
		if sendErr := stream.Send(&feedv1.Event{Id: "last"}); sendErr != nil {
			return sendErr
		}
		return err
	}
	ended := stream.Context().Done()
	switch topic := req.GetTopic(); topic {
	case "drained", "drained, then 15s":
		select {
		case <-b.draining:
			if topic == "drained" {
				return last(errHandler)
			}
			select {
			case <-time.After(15 * time.Second):
				return last(errHandler)
			case <-ended:
			}
		case <-ended:
		}
		time.Sleep(tidyUp)
	case "until drained":
		select {
		case <-b.draining:
			return errHandler
		case <-ended:
		}
	case "19.5s":
		time.Sleep(19500 * time.Millisecond)
		return last(nil)
	case "context":
		<-ended
		time.Sleep(tidyUp)
	case "90 KiB":
		for range 90 {
			if err := stream.Send(&feedv1.Event{Body: strings.Repeat("x", 1024)}); err != nil {
				return err
			}
		}
		return nil
	case "deaf":
		<-b.quiet
	case "deaf for 10s":
		time.Sleep(10 * time.Second)
	}
	return stream.Context().Err()
}

// A watch is a stream and what its client has of it.
type watch struct {
	b      *bench
	topic  string
	cancel context.CancelFunc
	stream grpc.ServerStreamingClient[feedv1.Event]
	ended  chan struct{}
	last   string
	err    error
	when   time.Time
}

// open opens a stream and returns when its first event has come. Its client reads
// on, unless the topic is one to stall.
func (b *bench) open(ctx context.Context, topic string) *watch {
	b.Helper()
	w := &watch{b: b, topic: topic, ended: make(chan struct{})}
	ctx, w.cancel = context.WithCancel(ctx)
	var err error
	w.stream, err = b.client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err == nil {
		_, err = w.stream.Recv()
	}
	if err != nil {
		b.Fatal(err)
	}
	if topic != "90 KiB" {
		go w.read()
	}
	return w
}

func (w *watch) read() {
	defer close(w.ended)
	for {
		ev, err := w.stream.Recv()
		if err != nil {
			w.err, w.when = err, time.Now()
			return
		}
		w.last = ev.GetId()
	}
}

// end waits for the end of the stream.
func (w *watch) end() {
	w.b.Helper()
	select {
	case <-w.ended:
	case <-time.After(2 * time.Second):
		w.b.Fatalf("%s: %v after the start of shutdown the stream has not ended:\n%s", w.topic, time.Since(w.b.start).Round(time.Second/10), w.b.Stuck())
	}
}

// wantWell wants that the stream ended as its handler wanted.
func (w *watch) wantWell(want error) {
	w.b.Helper()
	w.end()
	if w.last != "last" || !errors.Is(w.err, want) && status.Convert(w.err).Message() != status.Convert(want).Message() {
		w.b.Fatalf("%s: a stream that would have ended by itself within the budget of %v was cut: its client has %q after %v, want the last event and then %q", w.topic, budget, w.err, w.when.Sub(w.b.start).Round(time.Millisecond), want)
	}
}

// wantCut wants that the stream was cut when the budget was over.
func (w *watch) wantCut(budget time.Duration) {
	b := w.b
	b.Helper()
	select {
	case <-w.ended:
	case <-time.After(max(time.Until(b.start.Add(budget+at+lab.Latency)), 0) + time.Millisecond):
		b.Fatalf("budget %v: %v after the start a stream has not been cut:\n%s", budget, budget+at, b.Stuck())
	}
	after := w.when.Sub(b.start) - lab.Latency
	if status.Code(w.err) != codes.Unavailable || after < budget || after > budget+at {
		b.Fatalf("budget %v: a stream was cut after %v, want %v to %v (its client had %v)", budget, after.Round(time.Microsecond), budget, budget+at, status.Code(w.err))
	}
}

// A result is what a shutdown came to.
type result struct {
	b       *bench
	what    string
	done    chan struct{}
	err     error
	took    time.Duration
	running map[string]int // handlers, when it returned
}

// begin calls shutdown on a goroutine of its own. what says of which streams.
func (b *bench) begin(what string, budget time.Duration) *result {
	r := &result{b: b, what: fmt.Sprintf("shutdown(%v) with %s", budget, what), done: make(chan struct{}), running: map[string]int{}}
	b.mu.Lock()
	b.start = time.Now()
	b.mu.Unlock()
	go func() {
		defer close(r.done)
		defer func() {
			if v := recover(); v != nil {
				b.Errorf("%s panicked: %v", r.what, v)
			}
		}()
		r.err = shutdown(b.srv, b.drain, budget)
		r.took = time.Since(b.start)
		b.mu.Lock()
		defer b.mu.Unlock()
		for topic, n := range b.running {
			if n > 0 {
				r.running[topic] = n
			}
		}
	}()
	return r
}

// returns waits until shutdown has returned, which must be between the two, and
// wants the error and these handlers still at work.
func (r *result) returns(from, to time.Duration, want error, running map[string]int) {
	b := r.b
	b.Helper()
	limit := time.NewTimer(max(time.Until(b.start.Add(to+time.Millisecond)), time.Millisecond))
	defer limit.Stop()
	select {
	case <-r.done:
	case <-limit.C:
		stuck := b.Stuck()
		b.wantDrained(r.what, ":\n"+stuck)
		since := "1s after its budget was over"
		if want == nil {
			since = "half a second after the last stream and handler ended"
		}
		b.Fatalf("%s has not returned after %v, %s:\n%s", r.what, to, since, stuck)
	}
	if b.Failed() {
		b.FailNow()
	}
	time.Sleep(time.Nanosecond) // drain may be called beside it, at this instant
	b.returned = r.what + " returned " + say(r.err)
	b.wantDrained(b.returned+" and", "")
	for topic, n := range r.running {
		if n -= running[topic]; n > 0 {
			b.Fatalf("%s after %v, and handlers still ran that listen and would have returned within half a second: wait for them (%d of the kind %q)", b.returned, r.took.Round(time.Millisecond), n, topic)
		}
	}
	if r.took < from || r.took > to {
		b.Fatalf("%s after %v, want it after %v to %v", b.returned, r.took.Round(time.Millisecond), from, to)
	}
	right := want == nil && r.err == nil || want != nil && errors.Is(r.err, want)
	if want == errCut && errors.Is(r.err, errDeaf) {
		right = false
	}
	if !right {
		b.Fatalf("%s, want %s", b.returned, say(want))
	}
}

// say names an error of shutdown.
func say(err error) string {
	switch {
	case err == nil:
		return "nil"
	case err == errCut:
		return "errCut"
	case err == errDeaf:
		return "errDeaf"
	}
	return fmt.Sprintf("the error %q", err)
}

// wantDrained wants that drain was called at the start, once.
func (b *bench) wantDrained(what, stuck string) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case len(b.drains) == 0 && drainedBefore.Load():
		b.Fatalf("%s has not called drain; an earlier shutdown of another server did: does it keep state at package level?%s", what, strings.TrimPrefix(stuck, ":"))
	case len(b.drains) == 0:
		b.Fatalf("%s has not called drain, %v after its start: nobody has told the handlers%s", what, time.Since(b.start).Round(time.Second/10), stuck)
	case len(b.drains) > 1:
		b.Fatalf("%s called drain %d times, want once", what, len(b.drains))
	case b.drains[0] > at:
		b.Fatalf("%s called drain after %v, want it at the start: meanwhile nobody told the handlers", what, b.drains[0].Round(time.Millisecond))
	}
}

func TestDrainedHandlersEndTheirStreams(t *testing.T) {
	on(t, func(b *bench) {
		all := []*watch{b.open(b.ctx, "drained"), b.open(b.ctx, "drained"), b.open(b.ctx, "drained")}
		b.begin("3 streams that end when they are drained", budget).returns(0, soon, nil, nil)
		drainedBefore.Store(true)
		for _, w := range all {
			w.wantWell(errHandler)
		}
	})
	on(t, func(b *bench) {
		b.begin("a client and no stream", budget).returns(0, soon, nil, nil)
	})
}

func TestNoStreamIsCutThatEndsInTime(t *testing.T) {
	for _, tt := range []struct {
		topic string
		err   error
		ends  time.Duration
	}{{"19.5s", io.EOF, 19500 * time.Millisecond}, {"drained, then 15s", errHandler, 15 * time.Second}} {
		on(t, func(b *bench) {
			w, first := b.open(b.ctx, tt.topic), b.open(b.ctx, "drained")
			r := b.begin("a stream that ends after "+tt.ends.String(), budget)
			time.Sleep(budget + 2*time.Second) // a cut may come late, too
			b.wantDrained(r.what, "")
			w.wantWell(tt.err)
			first.wantWell(errHandler)
			r.returns(tt.ends-at, tt.ends+soon, nil, nil)
		})
	}
}

func TestNothingNewComesInFromTheStart(t *testing.T) {
	on(t, func(b *bench) {
		b.open(b.ctx, "drained, then 15s")
		drained := b.open(b.ctx, "drained")
		other := feedv1.NewFeedServiceClient(b.link.Dial())
		r := b.begin("a stream that ends after 15s", budget)
		const back = 7 * time.Millisecond // 12.1 ms after the drain: the news of a stop 5 ms after it is there
		select {
		case <-drained.ended:
		case <-time.After(at + lab.Latency): // was not drained: returns says so
		}
		time.Sleep(back)
		for i, client := range []feedv1.FeedServiceClient{other, b.client} {
			stream, err := client.Watch(b.ctx, &feedv1.WatchRequest{Topic: "until drained"})
			if err == nil {
				_, err = stream.Recv()
			}
			if status.Code(err) != codes.Unavailable {
				b.Fatalf("the client of a drained stream came back %v after its end on %s connection and had %v, want Unavailable: the server still takes streams", back, []string{"another", "the same"}[i], status.Code(err))
			}
		}
		r.returns(15*time.Second-at, 15*time.Second+soon, nil, nil)
	})
}

func TestTheBudgetCutsWhatIsLeft(t *testing.T) {
	for _, budget := range []time.Duration{budget, 1370 * time.Millisecond, 0, time.Hour} {
		on(t, func(b *bench) {
			w, drained := b.open(b.ctx, "context"), b.open(b.ctx, "drained")
			r := b.begin("a handler that listens to its context alone", budget)
			w.wantCut(budget)
			r.returns(budget+tidyUp-at, budget+time.Second, errCut, nil)
			if budget > 0 && drained.last != "last" {
				b.Fatalf("budget %v: a stream whose handler was drained was cut: %v", budget, drained.err)
			}
		})
	}
}

func TestADeafHandlerDoesNotHoldItUp(t *testing.T) {
	for _, wait := range []bool{false, true} {
		for _, budget := range []time.Duration{budget, time.Second} {
			on(t, func(b *bench) {
				ws := []*watch{b.open(b.ctx, "deaf"), b.open(b.ctx, "context")}
				r := b.begin(fmt.Sprintf("a deaf handler and one that listens to its context, WaitForHandlers(%v)", wait), budget)
				r.returns(budget+tidyUp, budget+time.Second, errDeaf, map[string]int{"deaf": 1})
				for _, w := range ws {
					w.wantCut(budget)
				}
				time.Sleep(time.Hour + 123*time.Millisecond) // and then nothing of shutdown is left
			}, grpc.WaitForHandlers(wait))
		}
	}
}

// The stream has ended, and its handler goes on.
func TestADeafHandlerWithoutAClientCountsToo(t *testing.T) {
	on(t, func(b *bench) {
		w := b.open(b.ctx, "deaf")
		w.cancel()
		<-w.ended
		b.begin("a deaf handler whose client has left", budget).returns(budget, budget+time.Second, errDeaf, map[string]int{"deaf": 1})
	})
	on(t, func(b *bench) {
		w := b.open(b.ctx, "deaf for 10s")
		w.cancel()
		<-w.ended
		b.begin("a handler whose client has left, and that returns after 10s", budget).returns(9*time.Second, 10*time.Second+soon, nil, nil)
	})
}

func TestAClientThatDoesNotReadIsCut(t *testing.T) {
	on(t, func(b *bench) {
		w := b.open(b.ctx, "90 KiB")
		time.Sleep(time.Second) // its handler has returned
		b.begin("90 KiB that a client does not read, their handler has returned", budget).returns(budget-at, budget+time.Second, errCut, nil)
		w.read()
	})
}

// Whatever ends the last stream, shutdown need not wait for its budget.
func TestEveryEndOfTheLastStreamEndsIt(t *testing.T) {
	for _, tt := range []struct {
		what string
		end  func(*bench, *watch)
	}{
		{"the client cancels", func(_ *bench, w *watch) { w.cancel() }},
		{"the client's deadline passes", func(*bench, *watch) {}},
		{"the network is cut", func(b *bench, _ *watch) { b.link.Cut() }},
	} {
		on(t, func(b *bench) {
			ctx, cancel := context.WithTimeout(b.ctx, map[bool]time.Duration{true: 5 * time.Second, false: time.Hour}[tt.what == "the client's deadline passes"])
			defer cancel()
			w := b.open(ctx, "context")
			r := b.begin("a stream that ends after 5s: "+tt.what, budget)
			time.Sleep(5 * time.Second)
			tt.end(b, w)
			r.returns(5*time.Second-at, 5*time.Second+tidyUp+soon, nil, nil)
		})
	}
}

// Two servers of one process, and then two more.
func TestTwoAtOnceKnowNothingOfEachOther(t *testing.T) {
	on(t, func(first *bench) {
		for range 2 {
			second := newBench(first.Lab)
			third := newBench(first.Lab)
			second.ctx, third.ctx = first.ctx, first.ctx
			second.open(first.ctx, "deaf")
			third.open(first.ctx, "drained, then 15s")
			a := second.begin("a deaf handler, beside another shutdown", 5*time.Second)
			time.Sleep(time.Millisecond)
			b := third.begin("a stream that ends after 15s, beside another shutdown", budget)
			first.Settle()
			if first.LockWanted() { // then time stands
				first.Errorf("two servers are stopped at once, and the second shutdown waits for a lock that the first one holds")
				second.release() // without taking any, so that the first one returns
				second.link.Cut()
				third.link.Cut()
				time.Sleep(2 * time.Second)
				first.FailNow()
			}
			a.returns(5*time.Second+tidyUp, 6*time.Second, errDeaf, map[string]int{"deaf": 1})
			b.returns(15*time.Second-at, 15*time.Second+soon, nil, nil)
			second.release()
		}
	})
}

func TestManyStreams(t *testing.T) {
	on(t, func(b *bench) {
		var all []*watch
		for range 100 {
			for _, topic := range []string{"drained", "drained, then 15s", "context"} {
				all = append(all, b.open(b.ctx, topic))
			}
		}
		b.begin("300 streams, of which 100 listen to their context alone", budget).returns(budget+tidyUp-at, budget+time.Second, errCut, nil)
		for _, w := range all {
			if w.topic == "context" {
				w.wantCut(budget)
			} else {
				w.wantWell(errHandler)
			}
		}
	})
}

// A timer that nobody has stopped keeps the server in memory, and so does a
// variable of the package.
func TestAServerThatWasStoppedIsForgotten(t *testing.T) {
	on(t, func(b *bench) {
		b.srv = grpc.NewServer()
		b.begin("a server that has no client", budget).returns(0, soon, nil, nil)
		srv := weak.Make(b.srv)
		b.srv = nil
		// The runtime lets go of a timer that was stopped when it would be the next
		// to run and another one comes (runtime/time.go, (*timers).cleanHead).
		time.Sleep(time.Until(b.start.Add(budget - 10*time.Millisecond)))
		for range 5 {
			time.Sleep(time.Millisecond)
		}
		runtime.GC()
		if srv.Value() != nil {
			b.Fatalf("%s, and something of it still holds the server: a timer that will run, or a variable at package level", b.returned)
		}
	})
}
