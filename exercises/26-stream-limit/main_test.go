package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// soon is how long Get, release and Close may take when there is nothing to
// wait for.
const soon = time.Second

var errDial = errors.New("no network")

// A bench is a pool, and what its check knows of it.
type bench struct {
	*lab.Lab
	p              *pool
	conns, perConn int
	closing        sync.Once
	gate           chan struct{} // if set, each dial waits for one of these

	mu      sync.Mutex
	ready   []*grpc.ClientConn // for dial to return, if they are to lead anywhere
	dialled []*grpc.ClientConn
	dialing int    // calls that have not returned
	calls   int    // so far
	fails   int    // the next so many calls fail
	held    []int  // by connection: places that Get gave out and nobody has given back
	before  string // what the test did, for fault
	wrong   string
}

// on runs body with a pool.
func on(t *testing.T, conns, perConn int, body func(*bench)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{Lab: l, conns: conns, perConn: perConn}
		b.p = newPool(b.dial, conns, perConn)
		body(b)
		b.check()
		b.close()
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, conn := range b.dialled {
			conn.Close()
		}
	}, lab.Lasts(10*24*time.Hour))
}

// dial is what the pool calls. It takes no virtual time: the answer may hold a
// lock.
func (b *bench) dial() (*grpc.ClientConn, error) {
	b.mu.Lock()
	b.calls++
	b.dialing++
	open := 0
	for _, conn := range b.dialled {
		if !closed(conn) {
			open++
		}
	}
	if open+b.dialing > b.conns {
		b.fault("dial was called with %d connections open and %d calls of it under way: the pool may have %d connections", open, b.dialing-1, b.conns)
	}
	gate := b.gate
	b.mu.Unlock()
	if gate != nil {
		<-gate
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dialing--
	if b.fails > 0 {
		b.fails--
		return nil, errDial
	}
	var conn *grpc.ClientConn
	if len(b.ready) > 0 {
		conn, b.ready = b.ready[0], b.ready[1:]
	} else {
		var err error
		conn, err = grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
	}
	b.dialled = append(b.dialled, conn)
	b.held = append(b.held, 0)
	return conn, nil
}

// close closes the pool, once.
func (b *bench) close() {
	b.Helper()
	b.closing.Do(func() { b.Call("Close", soon, b.p.Close) })
}

// fault remembers the first thing that was wrong, and what had happened before.
// The caller holds mu.
func (b *bench) fault(format string, args ...any) {
	if b.wrong == "" {
		b.wrong = b.before + fmt.Sprintf(format, args...)
	}
}

// check ends the test if something was wrong.
func (b *bench) check() {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.wrong != "" {
		b.Fatal(b.wrong)
	}
}

// A get is one call of Get.
type get struct {
	b       *bench
	done    chan struct{}
	took    time.Duration
	conn    *grpc.ClientConn
	n       int // of the connection, from 0; -1 if dial has not returned it
	release func()
	err     error
}

// get calls Get on a goroutine of its own.
func (b *bench) get(ctx context.Context) *get {
	g := &get{b: b, done: make(chan struct{})}
	start := time.Now()
	go func() {
		defer close(g.done)
		g.conn, g.release, g.err = b.p.Get(ctx)
		g.took = time.Since(start)
		if g.err == nil {
			g.given()
		}
	}()
	return g
}

// given notes what Get gave.
func (g *get) given() {
	b := g.b
	b.mu.Lock()
	defer b.mu.Unlock()
	g.n = slices.Index(b.dialled, g.conn)
	switch {
	case g.n < 0:
		b.fault("Get returned no error and a connection that dial has not returned")
	case g.release == nil:
		b.fault("Get returned no error and a release that is nil")
	default:
		if b.held[g.n]++; b.held[g.n] > b.perConn {
			b.fault("Get gave out place %d on connection %d, which has %d", b.held[g.n], g.n+1, b.perConn)
		}
	}
}

// free gives the place back.
func (g *get) free() {
	g.b.Helper()
	g.b.mu.Lock()
	g.b.held[g.n]--
	g.b.mu.Unlock()
	g.b.Call("release", soon, g.release)
	g.b.check()
}

// waits reports whether Get has not returned.
func (g *get) waits() bool {
	select {
	case <-g.done:
		return false
	default:
		return true
	}
}

// want waits until Get has given a place. why says what the pool had.
func (g *get) want(why string) {
	g.b.Helper()
	g.b.Call("with "+why+" Get", soon, func() { <-g.done })
	g.b.check()
	if g.err != nil {
		g.b.Fatalf("with %s Get returned the error %q, want a place", why, g.err)
	}
}

// got waits for Get and reports whether it gave a place.
func (b *bench) got(g *get) bool {
	<-g.done
	b.mu.Lock()
	defer b.mu.Unlock()
	if g.err != nil {
		b.fault("Get returned the error %q, want a place", g.err)
	}
	return g.err == nil && b.wrong == ""
}

// place calls Get, and wants a place at once.
func (b *bench) place(why string) *get {
	b.Helper()
	g := b.get(b.Context())
	g.want(why)
	return g
}

// fill takes all places that the pool has.
func (b *bench) fill() []*get {
	b.Helper()
	var all []*get
	for n := range b.conns * b.perConn {
		all = append(all, b.place(fmt.Sprintf("%d of %d places taken", n, b.conns*b.perConn)))
	}
	return all
}

// wantFull wants one more Get to wait.
func (b *bench) wantFull(what string) {
	b.Helper()
	b.before = what + ", and "
	ctx, cancel := context.WithCancel(b.Context())
	g := b.get(ctx)
	b.wantWaiting(what, g)
	cancel()
	b.Call("the context ended, and Get", soon, func() { <-g.done })
	if g.err == nil {
		b.Fatalf("%s, and Get, whose context had ended, returned a place", what)
	}
	b.before = ""
}

// wantWaiting wants Get to wait, an hour long.
func (b *bench) wantWaiting(what string, g *get) {
	b.Helper()
	time.Sleep(time.Hour)
	b.check()
	switch {
	case g.waits():
	case g.err != nil:
		b.Fatalf("%s, and Get returned the error %q after %v, want it to wait", what, g.err, g.took)
	default:
		b.Fatalf("%s, and Get returned a place on connection %d after %v, want it to wait", what, g.n+1, g.took)
	}
}

// wantDials wants dial to have been called n times.
func (b *bench) wantDials(n int, what string) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.calls != n {
		b.Fatalf("%s, and dial was called %d times, want %d", what, b.calls, n)
	}
}

// each runs f for all gets.
func each(all []*get, f func(*get)) {
	for _, g := range all {
		f(g)
	}
}

// closed reports whether the connection was closed.
func closed(conn *grpc.ClientConn) bool { return conn.GetState() == connectivity.Shutdown }

func TestGetFillsAConnectionBeforeItDialsAnother(t *testing.T) {
	for _, size := range [][2]int{{3, 2}, {1, 3}, {4, 1}} {
		on(t, size[0], size[1], func(b *bench) {
			b.wantDials(0, "newPool has returned, and nobody has called Get")
			for n := range b.conns * b.perConn {
				b.place(fmt.Sprintf("%d of %d places taken", n, b.conns*b.perConn))
				b.wantDials(n/b.perConn+1, fmt.Sprintf("%d places are taken, of %d on each connection", n+1, b.perConn))
			}
		})
	}
}

func TestGetWaitsUntilAPlaceIsFree(t *testing.T) {
	on(t, 3, 2, func(b *bench) {
		all := b.fill()
		for _, g := range []*get{all[3], all[0]} {
			one := b.get(b.Context())
			b.wantWaiting("all 6 places are taken", one)
			g.free()
			one.want(fmt.Sprintf("a place on connection %d free again, and one call waiting,", g.n+1))
			if one.n != g.n {
				b.Fatalf("a place on connection %d was free, and Get returned one on connection %d", g.n+1, one.n+1)
			}
		}
		b.wantDials(3, "6 places were taken, and two of them again")
	})
}

func TestAPlaceIsTakenAgain(t *testing.T) {
	on(t, 3, 2, func(b *bench) {
		for range 100 {
			b.place("no place taken").free()
		}
		b.wantDials(1, "a place was taken and given back, 100 times")
		for range 10 {
			each(b.fill(), (*get).free)
		}
		b.wantDials(3, "6 places were taken and given back, 10 times")
	})
}

func TestGetEndsWithItsContext(t *testing.T) {
	for _, end := range []struct {
		what string
		want error
		make func(context.Context) (context.Context, context.CancelFunc)
	}{
		{"the caller cancelled after 1m", context.Canceled, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Minute, cancel)
			return ctx, cancel
		}},
		{"the caller's deadline passed after 1m", context.DeadlineExceeded, func(ctx context.Context) (context.Context, context.CancelFunc) {
			return context.WithTimeout(ctx, time.Minute)
		}},
		{"the caller had cancelled before", context.Canceled, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			return ctx, cancel
		}},
	} {
		on(t, 2, 2, func(b *bench) {
			all := b.fill()
			ctx, cancel := end.make(b.Context())
			defer cancel()
			gone := b.get(ctx)
			b.Call("all 4 places are taken, "+end.what+", and Get", time.Minute+soon, func() { <-gone.done })
			b.check()
			if code := status.Code(gone.err); !errors.Is(gone.err, end.want) && code != status.FromContextError(end.want).Code() {
				b.Fatalf("all 4 places are taken, %s, and Get returned the error %v, want %v", end.what, gone.err, end.want)
			}
			all[2].free()
			b.place("a place given back after a Get that waited has given up")
			b.wantFull("all 4 places are taken")
		})
	}
}

func TestReleaseFreesOnePlaceHoweverOftenItIsCalled(t *testing.T) {
	for _, taken := range []bool{false, true} {
		on(t, 2, 2, func(b *bench) {
			all := b.fill()
			all[1].free()
			what := "one of 4 places was given back, by two calls of its release"
			var again *get
			if taken { // by somebody else, before the second call
				again = b.place("3 of 4 places taken")
				what = "a place was given back and taken again, and then its first owner called release a second time"
			}
			b.Call("a second call of release", soon, all[1].release)
			if !taken {
				again = b.place("3 of 4 places taken")
			}
			b.wantFull(what)
			again.free()
			b.place("3 of 4 places taken")
			b.wantFull("all 4 places are taken")
		})
	}
}

// Those who give up are not the last who wait, nor the first.
func TestWhoeverGivesUpTakesNoPlaceAlong(t *testing.T) {
	on(t, 1, 2, func(b *bench) {
		all := b.fill()
		for round := range 40 {
			var waiting []*get
			var cancels []context.CancelFunc
			for range 4 {
				ctx, cancel := context.WithCancel(b.Context())
				waiting, cancels = append(waiting, b.get(ctx)), append(cancels, cancel)
				time.Sleep(time.Millisecond)
			}
			gone := round % 4
			one := all[round%2]
			b.mu.Lock()
			b.held[one.n]--
			b.mu.Unlock()
			if round%8 < 4 {
				cancels[gone]()
				one.release()
			} else {
				one.release()
				cancels[gone]()
			}
			time.Sleep(soon)
			b.check()
			var got []*get
			each(waiting, func(g *get) {
				if !g.waits() && g.err == nil {
					got = append(got, g)
				}
			})
			if waiting[gone].waits() {
				b.Fatalf("4 calls of Get wait, the context of number %d ended, and %v later it has not returned:\n%s", gone+1, soon, b.Stuck())
			}
			if len(got) != 1 {
				b.Fatalf("4 calls of Get wait, number %d was cancelled at the instant at which a place was given back, and %v later %d calls have a place, want 1", gone+1, soon, len(got))
			}
			all[round%2] = got[0]
			for _, cancel := range cancels {
				cancel()
			}
			each(waiting, func(g *get) { b.Call("the context ended, and Get", soon, func() { <-g.done }) })
		}
		b.wantFull("both places are taken")
	})
}

func TestAnErrorOfDialTakesNoPlaceAlong(t *testing.T) {
	on(t, 2, 2, func(b *bench) {
		for conn := range 2 {
			b.fails = 3
			for range 3 {
				g := b.get(b.Context())
				b.Call(fmt.Sprintf("with %d places taken, and dial failing, Get", 2*conn), soon, func() { <-g.done })
				b.check()
				if !errors.Is(g.err, errDial) {
					b.Fatalf("dial failed with %q, and Get returned %v", errDial, g.err)
				}
			}
			for range 2 {
				b.place(fmt.Sprintf("%d connections open, and dial working again after 3 errors,", conn))
			}
		}
		b.wantFull("all 4 places are taken")
		b.wantDials(8, "dial failed 6 times, and opened 2 connections")
	})
}

// dialing is a pool with calls of Get while dial takes its time. Time stands.
func dialing(b *bench, gets int) []*get {
	b.Helper()
	b.gate = make(chan struct{})
	var all []*get
	for range gets {
		all = append(all, b.get(b.Context()))
	}
	b.Settle()
	b.check()
	return all
}

func TestManyCallsAtOnceShareWhatThereIs(t *testing.T) {
	for range 10 {
		on(t, 3, 4, func(b *bench) {
			waiting, freed := dialing(b, 50), 0
			close(b.gate)
			var got []*get
			for len(waiting) > 0 {
				time.Sleep(soon)
				b.check()
				waiting = slices.DeleteFunc(waiting, func(g *get) bool {
					if g.waits() {
						return false
					}
					got = append(got, g)
					return true
				})
				for _, g := range got[freed:] {
					if g.err != nil {
						b.Fatalf("of 50 calls of Get at once one returned the error %q", g.err)
					}
				}
				if want := 12 + freed; len(got) != want {
					b.Fatalf("50 calls of Get at once, 12 places, and %d of them given back: %d calls have returned, want %d", freed, len(got), want)
				}
				got[freed].free()
				freed++
			}
			b.wantDials(3, "50 calls of Get for 12 places on 3 connections")
		})
	}
}

// The Get that dials needs one place of the new connection. After an error
// there is no connection, but the right to dial one.
func TestADialHelpsThoseWhoWaitForIt(t *testing.T) {
	on(t, 1, 3, func(b *bench) {
		all := dialing(b, 5)
		close(b.gate)
		time.Sleep(soon)
		b.check()
		waiting := slices.DeleteFunc(slices.Clone(all), func(g *get) bool { return !g.waits() })
		if n := 5 - len(waiting); n != 3 {
			b.Fatalf("5 calls of Get waited for the one connection, with 3 places, that was being dialled; %v after dial returned it %d have a place:\n%s", soon, n, b.Stuck())
		}
		for _, g := range all {
			if !slices.Contains(waiting, g) {
				g.free()
			}
		}
		each(waiting, func(g *get) { g.want("3 places given back") })
	})
	on(t, 1, 3, func(b *bench) {
		b.fails = 1
		all := dialing(b, 3)
		close(b.gate)
		time.Sleep(soon)
		b.check()
		n := 0
		each(all, func(g *get) {
			switch {
			case g.waits():
				b.Fatalf("3 calls of Get waited for the one connection, dial failed, and %v later one still waits:\n%s", soon, b.Stuck())
			case g.err == nil:
				n++
			case !errors.Is(g.err, errDial):
				b.Fatalf("dial failed with %q, and Get returned %q", errDial, g.err)
			}
		})
		if n != 2 {
			b.Fatalf("3 calls of Get, of which one dialled, without success: %d of the other 2 have a place %v later", n, soon)
		}
	})
}

// during runs f while dial is under way, and wants it to return before dial does.
func (b *bench) during(what string, f func()) {
	b.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	b.Settle()
	select {
	case <-done:
	default:
		close(b.gate) // or a lock that is held over dial would keep virtual time from moving
		b.Fatalf("a Get was in dial, which took its time, and %s did not return before dial did", what)
	}
}

func TestNothingWaitsForADial(t *testing.T) {
	on(t, 2, 2, func(b *bench) {
		first := []*get{b.place("no place taken"), b.place("1 of 4 places taken")}
		dials := dialing(b, 1)[0]
		b.during("release", first[0].release)
		b.held[0]--
		finds := b.get(b.Context())
		b.during("another Get, for which there was a place,", func() { <-finds.done })
		finds.want("a place on connection 1 free, and another Get in dial,")
		ctx, cancel := context.WithCancel(b.Context())
		waits := b.get(ctx)
		b.Settle()
		cancel()
		b.during("a Get that waited and was cancelled", func() { <-waits.done })
		b.during("Close", b.close)
		close(b.gate)
		b.wantClosed("Close was called while a Get was in dial", dials)
		for n, conn := range b.dialled {
			if !closed(conn) {
				b.Fatalf("Close was called while a Get was in dial, then dial returned connection %d, and %v later it is not closed", n+1, soon)
			}
		}
	})
}

// wantClosed wants a call of Get to say that the pool is closed.
func (b *bench) wantClosed(what string, g *get) {
	b.Helper()
	b.Call(what+", and Get", soon, func() { <-g.done })
	b.check()
	switch {
	case g.err == nil:
		b.Fatalf("%s, and Get returned no error and connection %d, want %q", what, g.n+1, errClosed)
	case !errors.Is(g.err, errClosed):
		b.Fatalf("%s, and Get returned the error %q, want %q", what, g.err, errClosed)
	}
}

func TestCloseEndsAll(t *testing.T) {
	for _, free := range []int{0, 1, 4} {
		on(t, 3, 2, func(b *bench) {
			all := b.fill()
			each(all[:free], (*get).free)
			var waiting []*get
			if free == 0 {
				waiting = []*get{b.get(b.Context()), b.get(b.Context()), b.get(b.Context())}
				time.Sleep(time.Minute)
			}
			b.close()
			for n, conn := range b.dialled {
				if !closed(conn) {
					b.Fatalf("Close has returned, and connection %d of 3 is not closed (of 6 places %d were free)", n+1, free)
				}
			}
			each(waiting, func(g *get) { b.wantClosed("3 calls of Get waited, Close was called", g) })
			b.wantClosed("Close has returned", b.get(b.Context()))
			each(all[free:], (*get).free)
			b.wantClosed("Close has returned, places were given back after it", b.get(b.Context()))
			b.wantDials(3, "the pool had 3 connections when it was closed")
		})
	}
	on(t, 1, 1, func(b *bench) {
		one, waiting := b.place("no place taken"), b.get(b.Context())
		time.Sleep(time.Minute)
		b.p.Close()
		b.held[0]--
		one.release()
		b.closing.Do(func() {})
		b.wantClosed("a Get waited, Close was called and right after it release", waiting)
	})
}

// A feed is a server whose streams end as their topics say.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
}

func (feed) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	end := time.After(61 * time.Millisecond)
	if req.GetTopic() == "stays" {
		end = nil
	}
	select {
	case <-end:
		return map[string]error{"fails": status.Error(codes.Internal, "no disk")}[req.GetTopic()]
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

// watch opens a stream on the connection, and returns when it has ended.
func (b *bench) watch(g *get, topic string, lasts time.Duration) {
	ctx, cancel := context.WithTimeout(b.Context(), lasts)
	defer cancel()
	if topic == "cancelled" {
		time.AfterFunc(47*time.Millisecond, cancel)
	}
	start := time.Now()
	stream, err := feedv1.NewFeedServiceClient(g.conn).Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err == nil {
		stream.Header()
	}
	if took := time.Since(start); took != 2*lab.Latency {
		b.mu.Lock()
		b.fault("with a place from Get, opening a stream on connection %d took %v (%v), want %v, the round trip: it had to wait for others", g.n+1, took, err, 2*lab.Latency)
		b.mu.Unlock()
	}
	for err == nil {
		_, err = stream.Recv()
	}
	time.Sleep(lab.Latency + time.Millisecond) // the handler has ended, too
}

func TestWithAPlaceAStreamNeedsNotWait(t *testing.T) {
	on(t, 3, 2, func(b *bench) {
		link := b.NewLink()
		link.Serve(feed{}, grpc.MaxConcurrentStreams(2))
		for range 3 {
			b.ready = append(b.ready, link.Dial())
		}
		var all sync.WaitGroup
		reads := func(n int, topics []string, lasts time.Duration) {
			for i := range n {
				all.Go(func() {
					if g := b.get(b.Context()); b.got(g) {
						b.watch(g, topics[i%len(topics)], lasts)
						b.mu.Lock()
						b.held[g.n]--
						b.mu.Unlock()
						g.release()
					}
				})
				time.Sleep(3 * time.Millisecond)
			}
		}
		reads(40, []string{"ends", "fails", "cancelled", "stays"}, 53*time.Millisecond+time.Microsecond/2)
		b.Call("40 streams of 60ms, on 6 places, and a Get", soon, all.Wait)
		b.check()
		reads(6, []string{"stays"}, time.Hour)
		time.Sleep(time.Minute)
		link.Cut()
		link.Heal()
		b.Call("the network was cut under 6 streams, and a Get", soon, all.Wait)
		b.check()
		b.wantDials(3, "40 streams came and went, on 6 places,")
		each(b.fill(), (*get).free)
	})
}
