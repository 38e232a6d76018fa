package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

const silent = "silent"

func event(topic string) *feedv1.Event { return &feedv1.Event{Id: "1", Topic: topic} }

// A scene is a server with one of the handlers and a connection to it.
type scene struct {
	*server
	l      *lab.Lab
	link   *lab.Link
	grpc   *grpc.Server
	conn   *grpc.ClientConn
	client feedv1.FeedServiceClient
	ends   chan end // of handlers
}

// An end is how and when a handler returned.
type end struct {
	at  time.Time
	err error
}

func newScene(l *lab.Lab, handle handler, opts ...grpc.ServerOption) *scene {
	sc := &scene{l: l, link: l.NewLink(), ends: make(chan end, 3000)}
	sc.server = &server{broker: &broker{subs: map[*subscription]bool{}}}
	sc.handle = func(s *server, req *feedv1.WatchRequest, stream watchServer) error {
		err := handle(s, req, stream)
		sc.ends <- end{time.Now(), err}
		return err
	}
	sc.grpc = sc.link.Serve(sc.server, opts...)
	sc.conn = sc.link.Dial()
	sc.client = feedv1.NewFeedServiceClient(sc.conn)
	return sc
}

// enter opens a Watch and returns when its handler has subscribed. The first
// Recv that fails releases the client's side.
func (sc *scene) enter(ctx context.Context) {
	sc.l.Helper()
	stream, err := sc.client.Watch(ctx, &feedv1.WatchRequest{Topic: silent})
	if err == nil {
		_, err = stream.Header()
	}
	if err != nil {
		sc.l.Fatal(err)
	}
	go func() {
		for err == nil {
			_, err = stream.Recv()
		}
	}()
}

// left wants n handlers and as many subscriptions.
func (sc *scene) left(when string, n int) {
	sc.l.Helper()
	if h, p := int(sc.running.Load()), sc.broker.places(); h != n || p != n {
		sc.l.Errorf("%s there are %d handlers and %d subscriptions, want %d", when, h, p, n)
	}
}

// An ending is a way in which a stream ends under its handler.
type ending struct {
	name string
	end  func(sc *scene, cancel func())
	late time.Duration // until the server knows
}

// deadline is what a client enters with. gRPC rounds it up to a microsecond, so
// the client's RST_STREAM comes 1 ns before the server's own timer. With a
// whole microsecond both would come at one instant; over TCP either may be first.
const deadline = time.Second - time.Nanosecond

// endings happen to a client after half a second.
func endings() []ending {
	return []ending{
		{"cancel", func(_ *scene, cancel func()) { cancel() }, lab.Latency},
		{"deadline", func(*scene, func()) { time.Sleep(deadline - 500*time.Millisecond) }, lab.Latency},
		{"deadline in a black hole", func(sc *scene, _ func()) {
			sc.link.Blackhole()
			time.Sleep(deadline - 500*time.Millisecond)
		}, lab.Latency + time.Nanosecond},
		{"conn.Close", func(sc *scene, _ func()) { sc.conn.Close() }, lab.Latency},
		{"cut", func(sc *scene, _ func()) { sc.link.Cut() }, 0},
		{"srv.Stop", func(sc *scene, _ func()) { sc.grpc.Stop() }, 0},
	}
}

// play lets a client enter and its stream end. It returns when that was.
func (sc *scene) play(e ending) time.Time {
	sc.l.Helper()
	start := time.Now()
	ctx, cancel := context.WithTimeout(sc.l.Context(), deadline)
	sc.enter(ctx)
	time.Sleep(time.Until(start.Add(500 * time.Millisecond)))
	e.end(sc, cancel)
	now := time.Now()
	time.AfterFunc(time.Second, cancel)
	return now
}

// The recording that the README shows: what reaches the handler, and when it
// ends.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var sc *scene
		sc = newScene(l, func(s *server, req *feedv1.WatchRequest, stream watchServer) error {
			sc.link.Note(lab.Server, "Watch subscribes and waits for an event")
			ctx := stream.Context()
			context.AfterFunc(ctx, func() { sc.link.Note(lab.Server, "the stream's context: %v", ctx.Err()) })
			err := s.watchIgnoringContext(req, stream)
			sc.link.Note(lab.Server, "an event at last: Send says %v, Watch returns", status.Code(err))
			return err
		})
		ctx, cancel := context.WithCancel(l.Context())
		sc.enter(ctx)
		time.Sleep(time.Second)
		cancel()
		time.Sleep(24 * time.Hour)
		sc.broker.publish(event(silent))
		time.Sleep(time.Second)
		lab.Golden(t, "wire.txt", sc.link.Ladder())
	}, lab.Lasts(25*time.Hour))
}

// detached hides the client's end from a handler, as context.Background does
// in what a handler calls.
func detached(handle handler) handler {
	return func(s *server, req *feedv1.WatchRequest, stream watchServer) error {
		return handle(s, req, detachedStream{stream})
	}
}

type detachedStream struct{ watchServer }

func (detachedStream) Context() context.Context { return context.Background() }

func TestNoEndingOfTheStreamEndsADeafHandler(t *testing.T) {
	for _, deaf := range []struct {
		name   string
		handle handler
		places int
	}{
		{"watchIgnoringContext", (*server).watchIgnoringContext, 1},
		{"watchAskingBetween", (*server).watchAskingBetween, 1},
		{"watch with context.Background", detached((*server).watch), 1},
		{"watchBoth with context.Background", detached((*server).watchBoth), 2},
	} {
		for _, e := range endings() {
			lab.Run(t, func(l *lab.Lab) {
				knows := make(chan time.Time, 1)
				sc := newScene(l, func(s *server, req *feedv1.WatchRequest, stream watchServer) error {
					context.AfterFunc(stream.Context(), func() { knows <- time.Now() })
					return deaf.handle(s, req, stream)
				})
				ended := sc.play(e)
				if late := (<-knows).Sub(ended); late != e.late {
					l.Errorf("%s: the context was cancelled %v later, want %v", e.name, late, e.late)
				}
				time.Sleep(24 * time.Hour)
				if h, p := sc.running.Load(), sc.broker.places(); h != 1 || p != deaf.places {
					l.Errorf("%s: a day after %s %d handlers and %d subscriptions are left, want 1 and %d", deaf.name, e.name, h, p, deaf.places)
				}
				sc.broker.publish(event(silent))
			}, lab.Lasts(25*time.Hour))
		}
		t.Logf("%s: a day after each of %d endings it is there, with %d subscriptions", deaf.name, len(endings()), deaf.places)
	}
}

// listening are the handlers that hear their context.
var listening = []struct {
	name   string
	handle handler
}{{"watch", (*server).watch}, {"watchBoth", (*server).watchBoth}, {"watchNext", (*server).watchNext}}

func TestAListeningHandlerEndsWithItsStream(t *testing.T) {
	for _, way := range listening {
		for _, e := range endings() {
			lab.Run(t, func(l *lab.Lab) {
				sc := newScene(l, way.handle)
				ended := sc.play(e)
				if late := (<-sc.ends).at.Sub(ended); late != e.late {
					l.Errorf("%s: %s ended %v later, want %v", e.name, way.name, late, e.late)
				}
				time.Sleep(time.Millisecond)
				sc.left("after "+e.name, 0)
				if way.name == "watch" {
					l.Logf("%s: the handler ends %v later", e.name, e.late)
				}
			})
		}
	}
}

// arrivals lets n clients watch one after the other, each for 50 ms of its 100,
// and counts the handlers after every 50, and the most of them that there
// ever were. With events the topic has one every 25 s.
func arrivals(sc *scene, n int, events bool) (left []int, most int) {
	left = []int{0}
	for i := range n {
		start := time.Now()
		ctx, cancel := context.WithCancel(sc.l.Context())
		sc.enter(ctx)
		time.Sleep(time.Until(start.Add(50 * time.Millisecond)))
		cancel()
		time.Sleep(time.Until(start.Add(90 * time.Millisecond)))
		most = max(most, int(sc.running.Load()))
		if events && i%250 == 224 {
			sc.broker.publish(event(silent))
		}
		time.Sleep(time.Until(start.Add(100 * time.Millisecond)))
		if i%50 == 49 {
			left = append(left, int(sc.running.Load()))
			sc.link.Mark() // drops the recording
		}
	}
	return left, most
}

// memory is what the process holds on the heap and in stacks.
func memory() int {
	runtime.GC()
	runtime.GC() // and what the first left in pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// goroutines counts those of the test's bubble.
func goroutines() int {
	dump := make([]byte, 16<<20)
	dump = dump[:runtime.Stack(dump, true)]
	return strings.Count(string(dump), ", synctest bubble ")
}

func TestAThousandClientsLeaveAThousandHandlers(t *testing.T) {
	lines := make([][]int, 3)
	lab.Run(t, func(l *lab.Lab) {
		sc := newScene(l, (*server).watchIgnoringContext)
		arrivals(sc, 100, false) // warms up what is allocated once
		sc.broker.publish(event(silent))
		time.Sleep(time.Second)
		n, bytes := goroutines(), memory()
		lines[0], _ = arrivals(sc, 1000, false)
		time.Sleep(time.Minute)
		n, bytes = goroutines()-n, memory()-bytes
		sc.left("after 1,000 clients", 1000)
		if each := bytes / 1000; n != 1000 || each < 8_000 || each > 16_000 {
			l.Errorf("1,000 clients left %d goroutines and %d B each, want 1,000 and 8 to 16 KB", n, each)
		}
		open := 0
		for _, rpc := range l.RPCs() {
			if !rpc.Ended {
				open++
			}
		}
		if open > 0 {
			l.Errorf("%d RPCs have not ended at the client", open)
		}
		l.Logf("a silent topic: 1,000 handlers, %d goroutines, %d subscriptions, %d KB; %d RPCs at the clients", n, sc.broker.places(), bytes/1000, open)
		sc.broker.publish(event(silent))
		time.Sleep(time.Second)
		sc.left("after one event", 0)
	}, lab.RealLimit(time.Minute))
	for i, handle := range []handler{(*server).watchIgnoringContext, (*server).watch} {
		lab.Run(t, func(l *lab.Lab) {
			sc := newScene(l, handle)
			var most int
			lines[1+i], most = arrivals(sc, 1000, i == 0)
			if want := 250 * (1 - i); most != want {
				l.Errorf("there were up to %d handlers, want %d", most, want)
			}
			sc.broker.publish(event(silent))
		}, lab.RealLimit(time.Minute))
	}
	chart := "xychart-beta\n" +
		"    title \"handlers left: deaf at a silent topic; deaf, an event each 25 s; listening\"\n" +
		"    x-axis \"clients that came and went, one each 100 ms\" 0 --> 1000\n" +
		"    y-axis \"handlers\" 0 --> 1000\n"
	for _, line := range lines {
		chart += "    line " + strings.ReplaceAll(fmt.Sprint(line), " ", ", ") + "\n"
	}
	lab.Golden(t, "growth.mmd", chart)
	t.Log("\n" + chart)
}

// The first Send after the news has come fails, and not one before.
func TestADeafHandlerEndsAtItsNextEvent(t *testing.T) {
	for _, every := range []time.Duration{10 * time.Millisecond, time.Second, 20 * time.Minute} {
		lab.Run(t, func(l *lab.Lab) {
			sc := newScene(l, (*server).watchIgnoringContext)
			ctx, cancel := context.WithCancel(l.Context())
			sc.enter(ctx)
			start := time.Now()
			next := func() { time.Sleep(every - time.Since(start)%every); sc.broker.publish(event(silent)) }
			next()
			time.Sleep(time.Millisecond)
			cancel()
			if every < lab.Latency {
				l.Fatal("an event overtakes the cancel")
			}
			next()
			e := <-sc.ends
			if late := e.at.Sub(start); late != 2*every || status.Code(e.err) != codes.Canceled {
				l.Errorf("with an event each %v the handler ended at %v with %v, want %v and Canceled", every, late, e.err, 2*every)
			}
			l.Logf("an event each %v: the handler ends %v after its client, and returns %v", every, every-time.Millisecond, e.err)
		}, lab.Lasts(time.Hour))
	}
	lab.Run(t, func(l *lab.Lab) {
		sc := newScene(l, (*server).watchIgnoringContext)
		ctx, cancel := context.WithCancel(l.Context())
		sc.enter(ctx)
		cancel()
		time.Sleep(lab.Latency - time.Millisecond)
		sc.broker.publish(event(silent)) // the cancel is on the way
		time.Sleep(24 * time.Hour)
		sc.left("a day after an event that met the cancel", 1)
		sc.broker.publish(event(silent))
		time.Sleep(time.Second)
		sc.left("after the next event", 0)
	}, lab.Lasts(25*time.Hour))
}

// After 30 minutes without an RPC the client's channel goes idle and closes its
// connection (clientconn.go, enterIdleMode; dialoptions.go, idleTimeout). For a
// deadline the server has two timers, and either may be first: one cancels the
// context and one the stream (http2_server.go, operateHeaders).
func TestSendSaysCanceledDeadlineExceededOrUnavailable(t *testing.T) {
	for _, tt := range []struct {
		ending string
		wait   time.Duration
		want   []codes.Code
	}{
		{"cancel", 29 * time.Minute, []codes.Code{codes.Canceled}},
		{"cancel", 31 * time.Minute, []codes.Code{codes.Unavailable}},
		{"deadline", 29 * time.Minute, []codes.Code{codes.Canceled}},
		{"deadline in a black hole", time.Minute, []codes.Code{codes.DeadlineExceeded, codes.Canceled}},
		{"conn.Close", time.Minute, []codes.Code{codes.Unavailable}},
		{"cut", time.Minute, []codes.Code{codes.Unavailable}},
		{"srv.Stop", time.Minute, []codes.Code{codes.Unavailable}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			sc := newScene(l, (*server).watchIgnoringContext)
			i := slices.IndexFunc(endings(), func(e ending) bool { return e.name == tt.ending })
			sc.play(endings()[i])
			time.Sleep(tt.wait)
			sc.broker.publish(event(silent))
			err := (<-sc.ends).err
			if !slices.Contains(tt.want, status.Code(err)) {
				l.Errorf("%v after %s Send says %v, want %v", tt.wait, tt.ending, err, tt.want)
			}
			l.Logf("%v after %s: %v", tt.wait, tt.ending, err)
		}, lab.Lasts(time.Hour))
	}
}

// goleakSays is goleak's report as a recording has it.
func goleakSays(opts ...goleak.Option) string {
	if found := lab.Goleak(opts...); len(found) > 0 {
		return strings.Join(found, "\n") + "\n"
	}
	return ""
}

func TestClosingHidesNothing(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		sc := newScene(l, (*server).watchIgnoringContext)
		before := goleak.IgnoreCurrent() // the connection is up
		ctx, cancel := context.WithCancel(l.Context())
		sc.enter(ctx)
		cancel()
		time.Sleep(time.Minute)
		open := goleakSays(before)
		rpcs := l.RPCs()
		sc.conn.Close()
		time.Sleep(time.Minute)
		closed := goleakSays(before)
		sc.grpc.Stop()
		time.Sleep(time.Minute)
		stopped := goleakSays(before)
		if open != closed || open != stopped {
			l.Errorf("open, closed and stopped goleak says\n%s\n%s\n%s", open, closed, stopped)
		}
		if len(rpcs) != 1 || !rpcs[0].Ended {
			l.Errorf("the client's RPCs are %+v, want one that ended", rpcs)
		}
		lab.Golden(t, "goleak.txt", open)
		sc.broker.publish(event(silent))
		time.Sleep(time.Second)
		if says := goleakSays(before); says != "" {
			l.Errorf("after an event goleak says\n%s", says)
		}
		l.Logf("connection open, closed, server stopped, each time:\n%s", open)
	})
}

func TestGoleakFindsNothingOfAListeningHandler(t *testing.T) {
	for _, way := range listening {
		lab.Run(t, func(l *lab.Lab) {
			sc := newScene(l, way.handle)
			before := goleak.IgnoreCurrent()
			for range 200 {
				ctx, cancel := context.WithCancel(l.Context())
				sc.enter(ctx)
				cancel()
			}
			time.Sleep(time.Second)
			if says := goleakSays(before); says != "" {
				l.Errorf("%s, connection open: goleak says\n%s", way.name, says)
			}
			sc.left("after 200 clients", 0)
			l.Logf("%s, connection open, 200 clients have left: nothing", way.name)
		})
	}
}

// inBackground runs f. The channel gets the time at which f has returned.
func inBackground(f func()) <-chan time.Time {
	done := make(chan time.Time, 1)
	go func() { f(); done <- time.Now() }()
	return done
}

func TestStopReturnsAndADeafHandlerStays(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		sc := newScene(l, (*server).watchIgnoringContext)
		sc.enter(l.Context())
		start := time.Now()
		sc.grpc.Stop()
		if took := time.Since(start); took != 0 {
			l.Errorf("Stop took %v, want 0s", took)
		}
		time.Sleep(24 * time.Hour)
		sc.left("a day after Stop has returned", 1)
		sc.broker.publish(event(silent))
		l.Logf("Stop returned after 0s; a day later %d handler runs", sc.running.Load())
	}, lab.Lasts(25*time.Hour))
}

func TestStopThatWaitsForHandlersWaitsForADeafOne(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		sc := newScene(l, (*server).watchIgnoringContext, grpc.WaitForHandlers(true))
		sc.enter(l.Context())
		start := time.Now()
		stopped := inBackground(sc.grpc.Stop)
		time.Sleep(24 * time.Hour)
		if len(stopped) != 0 {
			l.Errorf("Stop with WaitForHandlers has returned, and %d handlers run", sc.running.Load())
		}
		sc.broker.publish(event(silent))
		took := (<-stopped).Sub(start)
		if took != 24*time.Hour {
			l.Errorf("Stop with WaitForHandlers took %v, want the 24h until the event", took)
		}
		l.Logf("Stop with WaitForHandlers returned after %v, with the event", took)
	}, lab.Lasts(25*time.Hour))
}

// Its client has left and its connection is closed.
func TestGracefulStopWaitsForADeafHandler(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		sc := newScene(l, (*server).watchIgnoringContext)
		sc.enter(l.Context())
		sc.conn.Close()
		time.Sleep(time.Minute)
		start := time.Now()
		graceful := inBackground(sc.grpc.GracefulStop)
		time.Sleep(12 * time.Hour)
		stopped := inBackground(sc.grpc.Stop)
		time.Sleep(12 * time.Hour)
		if len(graceful) != 0 || len(stopped) != 1 {
			l.Errorf("after a day GracefulStop and after half a day Stop have returned %d and %d times, want 0 and 1", len(graceful), len(stopped))
		}
		sc.broker.publish(event(silent))
		took := (<-graceful).Sub(start)
		if took != 24*time.Hour {
			l.Errorf("GracefulStop took %v, want the 24h until the event", took)
		}
		l.Logf("no client, no connection: Stop returned, GracefulStop after %v, with the event", took)
	}, lab.Lasts(25*time.Hour))
}

func TestOneSelectHoldsAllSources(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		sc := newScene(l, (*server).watchBoth)
		ctx, cancel := context.WithCancel(l.Context())
		stream, err := sc.client.Watch(ctx, &feedv1.WatchRequest{Topic: silent})
		if err != nil {
			l.Fatal(err)
		}
		for _, topic := range []string{"all", silent, silent, "all"} {
			time.Sleep(time.Hour)
			sc.broker.publish(event(topic))
			if ev, err := stream.Recv(); ev.GetTopic() != topic {
				l.Errorf("the topic %q had an event, and Recv returned %v, %v", topic, ev, err)
			}
		}
		if n := sc.broker.places(); n != 2 {
			l.Errorf("a handler of two topics has %d subscriptions", n)
		}
		cancel()
		time.Sleep(time.Second)
		sc.left("after the cancel", 0)
	}, lab.Lasts(5*time.Hour))
}

// The handler's return cancels the stream's context (http2_server.go,
// finishStream), so a good end calls what AfterFunc was given, too. In
// watchNext a second close would panic.
func TestAfterFuncFiresAfterAGoodEndToo(t *testing.T) {
	for _, how := range []string{"the client leaves", "the topic ends"} {
		lab.Run(t, func(l *lab.Lab) {
			var closes atomic.Int32
			noStop := func(s *server, _ *feedv1.WatchRequest, stream watchServer) error {
				sub := s.broker.subscribe(silent)
				var once sync.Once
				closing := func() { closes.Add(1); once.Do(sub.close) }
				context.AfterFunc(stream.Context(), closing)
				defer closing()
				sub.next()
				return nil
			}
			for _, handle := range []handler{noStop, (*server).watchNext} {
				sc := newScene(l, handle)
				ctx, cancel := context.WithCancel(l.Context())
				sc.enter(ctx)
				if how == "the topic ends" {
					sc.broker.end()
				} else {
					cancel()
				}
				<-sc.ends
				time.Sleep(time.Second)
				sc.left("when "+how, 0)
				cancel()
			}
			if n := closes.Load(); n != 2 {
				l.Errorf("%s, and AfterFunc with a defer, without stop, closed %d times, want 2", how, n)
			}
			l.Logf("%s: without stop closed %d times, with it once", how, closes.Load())
		})
	}
}
