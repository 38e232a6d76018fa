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
	ctx            context.Context // ends with the test
	closing        sync.Once
	gate           chan struct{} // if set, each dial waits until it is closed

	mu      sync.Mutex
	ready   []*grpc.ClientConn // for dial to return, if they are to lead anywhere
	dialled []*grpc.ClientConn
	dialing int    // calls that have not returned
	calls   int    // so far
	fails   int    // the next so many calls fail
	failing func() // is called at the same instant
	held    []int  // by connection: places that Get gave out and nobody has given back
	before  string // what the test did, for fault
}

// on runs body with a pool.
func on(t *testing.T, conns, perConn int, body func(*bench)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		b := &bench{Lab: l, conns: conns, perConn: perConn, ctx: ctx, failing: func() {}}
		b.p = newPool(b.dial, conns, perConn)
		body(b)
		b.check()
		b.close()
		for _, conn := range b.dialled {
			conn.Close()
		}
	}, lab.Lasts(10*24*time.Hour))
}

// dial is what the pool calls. It takes no virtual time: the answer may hold a
// lock.
func (b *bench) dial() (conn *grpc.ClientConn, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	open := 0
	for _, conn := range b.dialled {
		if !closed(conn) {
			open++
		}
	}
	if open+b.dialing >= b.conns {
		b.fault("dial was called with %d connections open and %d calls of it under way: the pool may have %d connections", open, b.dialing, b.conns)
	}
	b.calls++
	b.dialing++
	if gate := b.gate; gate != nil {
		b.mu.Unlock()
		<-gate
		b.mu.Lock()
	}
	b.dialing--
	switch {
	case b.fails > 0:
		b.fails--
		b.failing()
		return nil, errDial
	case len(b.ready) > 0:
		conn, b.ready = b.ready[0], b.ready[1:]
	default:
		if conn, err = grpc.NewClient("passthrough:///nowhere", grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
			return nil, err
		}
	}
	b.dialled, b.held = append(b.dialled, conn), append(b.held, 0)
	return conn, nil
}

// close closes the pool, once.
func (b *bench) close() {
	b.Helper()
	b.closing.Do(func() { b.Call("Close", soon, b.p.Close) })
}

// fault says what was wrong, if it is the first thing, and what had happened
// before. The test ends with the next check.
func (b *bench) fault(format string, args ...any) {
	if !b.Failed() {
		b.Errorf(b.before+format, args...)
	}
}

// check ends the test if something was wrong.
func (b *bench) check() {
	if b.Failed() {
		b.FailNow()
	}
}

// A get is one call of Get.
type get struct {
	b       *bench
	done    chan struct{}
	took    time.Duration
	conn    *grpc.ClientConn
	n       int // of the connection, from 0
	release func()
	err     error
}

// get calls Get on a goroutine of its own, and notes what it gives.
func (b *bench) get(ctx context.Context) *get {
	g := &get{b: b, done: make(chan struct{})}
	start := time.Now()
	go func() {
		defer close(g.done)
		g.conn, g.release, g.err = b.p.Get(ctx)
		g.took = time.Since(start)
		b.mu.Lock()
		defer b.mu.Unlock()
		if g.err != nil {
			return
		}
		if g.n = slices.Index(b.dialled, g.conn); g.n < 0 || g.release == nil {
			g.n = -1
			b.fault("Get returned no error, and a connection that dial has not returned, or no release")
		} else if b.held[g.n]++; b.held[g.n] > b.perConn {
			b.fault("Get gave out place %d on connection %d, which has %d", b.held[g.n], g.n+1, b.perConn)
		}
	}()
	return g
}

// gets is n calls of Get at once, and waits until each has come as far as it can.
// Time stands.
func (b *bench) gets(n int) (all []*get) {
	b.Helper()
	for range n {
		all = append(all, b.get(b.Context()))
	}
	b.Settle()
	b.check()
	return all
}

// free gives the place back.
func (g *get) free() {
	g.b.Helper()
	g.b.mu.Lock()
	g.b.held[g.n]--
	g.b.mu.Unlock()
	g.b.Call("release", soon, g.release)
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

// returns waits until Get has returned, for limit.
func (g *get) returns(what string, limit time.Duration) {
	g.b.Helper()
	g.b.Call(what+" Get", limit, func() { <-g.done })
	g.b.check()
}

// want waits until Get has given a place. why says what the pool had.
func (g *get) want(why string) {
	g.b.Helper()
	g.returns("with "+why, soon)
	if g.err != nil {
		g.b.Fatalf("with %s Get returned the error %q, want a place", why, g.err)
	}
}

// wantErr waits until Get has returned an error, and wants it to be this one. Of
// a context gRPC's error will do.
func (g *get) wantErr(what string, want error) {
	g.b.Helper()
	g.returns(what+", and", soon)
	code := status.FromContextError(want).Code()
	if g.err == nil {
		g.b.Fatalf("%s, and Get returned no error and connection %d, want %q", what, g.n+1, want)
	} else if !errors.Is(g.err, want) && (code == codes.Unknown || status.Code(g.err) != code) {
		g.b.Fatalf("%s, and Get returned the error %q, want %q", what, g.err, want)
	}
}

// wantWaiting wants Get to wait, an hour long.
func (g *get) wantWaiting(what string) {
	g.b.Helper()
	time.Sleep(time.Hour)
	g.b.check()
	if g.waits() {
		return
	}
	if g.err != nil {
		g.b.Fatalf("%s, and Get returned the error %q after %v, want it to wait", what, g.err, g.took)
	}
	g.b.Fatalf("%s, and Get returned a place on connection %d after %v, want it to wait", what, g.n+1, g.took)
}

// place calls Get, and wants a place at once.
func (b *bench) place() *get {
	b.Helper()
	taken := 0
	b.mu.Lock()
	for _, n := range b.held {
		taken += n
	}
	b.mu.Unlock()
	g := b.get(b.ctx)
	g.want(fmt.Sprintf("%d of %d places taken", taken, b.conns*b.perConn))
	return g
}

// fill takes all places that the pool has.
func (b *bench) fill() (all []*get) {
	b.Helper()
	for range b.conns * b.perConn {
		all = append(all, b.place())
	}
	return all
}

// wantFull wants one more Get to wait.
func (b *bench) wantFull(what string) {
	b.Helper()
	b.before = what + ", and "
	ctx, cancel := context.WithCancel(b.Context())
	g := b.get(ctx)
	g.wantWaiting(what)
	cancel()
	g.returns("the context ended, and", soon)
	b.before = ""
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

// wantAllClosed wants each connection to be closed.
func (b *bench) wantAllClosed(what string) {
	b.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for n, conn := range b.dialled {
		if !closed(conn) {
			b.Fatalf("%s, and connection %d of %d is not closed", what, n+1, len(b.dialled))
		}
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
				b.place()
				b.wantDials(n/b.perConn+1, fmt.Sprintf("%d places are taken, of %d on each connection", n+1, b.perConn))
			}
		})
	}
}

func TestGetWaitsUntilAPlaceIsFree(t *testing.T) {
	on(t, 3, 2, func(b *bench) {
		all := b.fill()
		for _, g := range []*get{all[3], all[0]} {
			one := b.get(b.ctx)
			one.wantWaiting("all 6 places are taken")
			g.free()
			one.want(fmt.Sprintf("a place on connection %d free again, and one call waiting,", g.n+1))
		}
		b.wantDials(3, "6 places were taken, and two of them again")
	})
}

func TestAPlaceIsKeptWhenAContextEnds(t *testing.T) {
	on(t, 1, 1, func(b *bench) {
		ctx, cancel := context.WithCancel(b.Context())
		b.get(ctx).want("no place taken")
		cancel()
		b.wantFull("the context of a Get that had returned ended, its place was not released")
	})
}

func TestAPlaceIsTakenAgain(t *testing.T) {
	on(t, 3, 2, func(b *bench) {
		for range 100 {
			b.place().free()
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
		what               string
		want               error
		cancelled, timeout time.Duration
	}{
		{"the caller cancelled after 1m", context.Canceled, time.Minute, time.Hour},
		{"the caller's deadline passed after 1m", context.DeadlineExceeded, time.Hour, time.Minute},
		{"the caller had cancelled before", context.Canceled, 0, time.Hour},
	} {
		on(t, 2, 2, func(b *bench) {
			all, what := b.fill(), "all 4 places are taken, "+end.what
			ctx, cancel := context.WithCancelCause(b.Context())
			defer cancel(nil)
			ctx, stop := context.WithTimeout(ctx, end.timeout)
			defer stop()
			time.AfterFunc(end.cancelled, func() { cancel(errors.New("had enough")) })
			b.Settle()
			gone := b.get(ctx)
			gone.returns(what+", and", time.Minute+soon)
			gone.wantErr(what, end.want)
			all[2].free()
			b.place()
			b.wantFull("all 4 places are taken")
		})
	}
}

func TestReleaseFreesOnePlaceHoweverOftenItIsCalled(t *testing.T) {
	on(t, 2, 2, func(b *bench) {
		one := b.fill()[1]
		one.free()
		b.Call("a second call of release", soon, one.release)
		b.place()
		b.wantFull("one of 4 places was given back, by two calls of its release")
		b.Call("a third call of release", soon, one.release)
		b.wantFull("a place was given back and taken again, and then its first owner called release again")
	})
}

// Those who give up are not the last who wait, nor the first.
func TestWhoeverGivesUpTakesNoPlaceAlong(t *testing.T) {
	on(t, 1, 2, func(b *bench) {
		all := b.fill()
		for round := range 40 {
			var waiting, got []*get
			var cancels []context.CancelFunc
			for range 4 {
				ctx, cancel := context.WithCancel(b.Context())
				waiting, cancels = append(waiting, b.get(ctx)), append(cancels, cancel)
				time.Sleep(time.Millisecond)
			}
			gone := round % 4
			both := []func(){cancels[gone], all[round%2].free}
			if round%8 >= 4 {
				slices.Reverse(both)
			}
			both[0]()
			both[1]()
			time.Sleep(soon)
			b.check()
			if waiting[gone].waits() {
				b.Fatalf("4 calls of Get wait, the context of number %d ended, and %v later it has not returned:\n%s", gone+1, soon, b.Stuck())
			}
			each(waiting, func(g *get) {
				if !g.waits() && g.err == nil {
					got = append(got, g)
				}
			})
			if len(got) != 1 {
				b.Fatalf("4 calls of Get wait, number %d was cancelled at the instant at which a place was given back, and %v later %d calls have a place, want 1", gone+1, soon, len(got))
			}
			all[round%2] = got[0]
			for _, cancel := range cancels {
				cancel()
			}
			each(waiting, func(g *get) { g.returns("the context ended, and", soon) })
		}
		b.wantFull("both places are taken")
	})
}

func TestWhoeverGivesUpLeavesADialToOthers(t *testing.T) {
	on(t, 1, 2, func(b *bench) {
		for range 20 { // dial fails at the instant at which one who waits gives up
			ctx, cancel := context.WithCancel(b.Context())
			b.gate, b.fails, b.failing = make(chan struct{}), 3, cancel
			all := b.gets(1)
			all = append(all, b.get(ctx))
			b.Settle()
			all = append(all, b.gets(1)...)
			close(b.gate)
			time.Sleep(soon)
			for n, g := range all {
				if g.waits() {
					b.Fatalf("of 3 calls of Get number 1 was in dial, which failed at the instant at which number 2 gave up, and %v later number %d has not returned:\n%s", soon, n+1, b.Stuck())
				}
			}
			cancel()
		}
		b.fails = 0
		each(b.fill(), (*get).free)
	})
	on(t, 1, 2, func(b *bench) {
		b.gate = make(chan struct{})
		ctx, cancel := context.WithCancel(b.Context())
		gone, what := b.get(ctx), "the context of a Get ended while it was in dial, which then brought a connection"
		b.Settle()
		cancel()
		b.Settle()
		close(b.gate)
		if gone.returns(what+", and", soon); gone.err == nil {
			gone.free()
		} else {
			gone.wantErr(what, context.Canceled)
		}
		for n := range 2 {
			b.get(b.ctx).want(fmt.Sprintf("%d of 2 places taken on a connection for which a Get had called dial that gave up meanwhile,", n))
		}
	})
}

func TestAnErrorOfDialTakesNoPlaceAlong(t *testing.T) {
	on(t, 2, 2, func(b *bench) {
		for taken := range 2 {
			b.fails = 3
			for range 3 {
				b.get(b.Context()).wantErr(fmt.Sprintf("with %d places taken dial failed", 2*taken), errDial)
			}
			b.place()
			b.place()
		}
		b.wantFull("all 4 places are taken")
		b.wantDials(8, "dial failed 6 times, and opened 2 connections")
	})
	on(t, 1, 3, func(b *bench) { // the right to dial is for one who waits
		b.gate, b.fails = make(chan struct{}), 1
		all, failed := b.gets(3), 0
		b.mu.Lock()
		first, next := b.gate, make(chan struct{})
		b.gate = next // of the dial after the one that fails
		b.mu.Unlock()
		close(first)
		b.Settle() // whose dial failed has the error, before another dial brings places
		close(next)
		time.Sleep(soon)
		b.check()
		each(all, func(g *get) {
			switch {
			case g.waits():
				b.Fatalf("3 calls of Get waited for the one connection, dial failed, and %v later one still waits:\n%s", soon, b.Stuck())
			case errors.Is(g.err, errDial):
				failed++
			case g.err != nil:
				b.Fatalf("dial failed with %q, and Get returned %q", errDial, g.err)
			}
		})
		if failed != 1 {
			b.Fatalf("of 3 calls of Get one was in dial, which failed once, and %d of the 3 returned that error, want 1: dial was called %d times, want 2", failed, b.calls)
		}
	})
}

func TestManyCallsAtOnceShareWhatThereIs(t *testing.T) {
	for range 10 {
		on(t, 3, 4, func(b *bench) {
			b.gate = make(chan struct{})
			all := b.gets(50)
			close(b.gate)
			var got []*get
			for freed := range all {
				time.Sleep(soon)
				b.check()
				all = slices.DeleteFunc(all, func(g *get) bool {
					if !g.waits() {
						got = append(got, g)
					}
					return !g.waits()
				})
				if want := min(50, 12+freed); len(got) != want {
					b.Fatalf("50 calls of Get at once, 3 connections dialled with 4 places each, release called %d times: %v later %d calls have had a place, want %d:\n%s", freed, soon, len(got), want, b.Stuck())
				}
				got[freed].want("50 calls at once")
				got[freed].free()
			}
			b.wantDials(3, "50 calls of Get for 12 places on 3 connections")
		})
	}
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
		first := b.place()
		b.place()
		b.gate = make(chan struct{})
		dials := b.gets(1)[0]
		b.during("release", first.free)
		finds := b.get(b.Context())
		b.during("another Get, for which there was a place,", func() {
			select {
			case <-finds.done:
			case <-dials.done: // it may take the place, too
				finds, dials = dials, finds
			}
		})
		finds.want("a place on connection 1 free, and a Get in dial,")
		ctx, cancel := context.WithCancel(b.Context())
		waits := b.get(ctx)
		b.Settle()
		cancel()
		b.during("a Get that waited and was cancelled", func() { <-waits.done })
		b.during("Close", b.close)
		close(b.gate)
		dials.wantErr("Close was called while a Get was in dial", errClosed)
		time.Sleep(soon)
		b.wantAllClosed(fmt.Sprintf("Close was called while a Get was in dial, dial returned a connection %v ago", soon))
	})
	on(t, 2, 1, func(b *bench) {
		b.gate = make(chan struct{})
		all := b.gets(2)
		b.mu.Lock()
		dialing := b.dialing
		b.mu.Unlock()
		close(b.gate)
		if dialing != 2 {
			b.Fatalf("2 calls of Get at once, room for 2 connections with one place each, and %d called dial: the other waited for a dial that brought it nothing", dialing)
		}
		each(all, func(g *get) { g.want("2 connections dialled at once, with one place each,") })
	})
}

func TestCloseEndsAll(t *testing.T) {
	for _, free := range []int{0, 1, 4} {
		on(t, 3, 2, func(b *bench) {
			all := b.fill()
			each(all[:free], (*get).free)
			var waiting []*get
			if free == 0 {
				waiting = b.gets(3)
				time.Sleep(time.Minute)
			}
			b.close()
			b.wantAllClosed(fmt.Sprintf("Close has returned, of 6 places %d were free", free))
			each(waiting, func(g *get) { g.wantErr("3 calls of Get waited, Close was called", errClosed) })
			b.get(b.Context()).wantErr("Close has returned", errClosed)
			each(all[free:], (*get).free)
			b.get(b.Context()).wantErr("Close has returned, places were given back after it", errClosed)
			b.wantDials(3, "the pool had 3 connections when it was closed")
		})
	}
	on(t, 1, 1, func(b *bench) {
		one, waiting := b.place(), b.gets(1)[0]
		b.close()
		one.free()
		waiting.wantErr("a Get waited, Close was called and right after it release", errClosed)
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
	ends := map[string]error{"the server returned": nil, "the server failed": status.Error(codes.Internal, "no disk")}
	if err, ok := ends[req.GetTopic()]; ok {
		time.Sleep(time.Second)
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func TestWithAPlaceAStreamNeedsNotWait(t *testing.T) {
	on(t, 3, 2, func(b *bench) {
		link := b.NewLink()
		link.Serve(feed{}, grpc.MaxConcurrentStreams(2))
		for range 3 {
			b.ready = append(b.ready, link.Dial())
		}
		for _, end := range []string{"the server returned", "the server failed", "the client cancelled", "the deadline passed", "the network was cut"} {
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			defer cancel()
			all := b.fill()
			var streams sync.WaitGroup
			for _, g := range all {
				start := time.Now()
				stream, err := feedv1.NewFeedServiceClient(g.conn).Watch(ctx, &feedv1.WatchRequest{Topic: end})
				if err != nil {
					b.Fatalf("with a place from Get, a stream on connection %d failed: %v", g.n+1, err)
				}
				stream.Header()
				if took := time.Since(start); took != 2*lab.Latency {
					b.Fatalf("with a place from Get, opening a stream on connection %d took %v, want %v, the round trip: it had to wait for others", g.n+1, took, 2*lab.Latency)
				}
				streams.Go(func() {
					for err == nil {
						_, err = stream.Recv()
					}
				})
			}
			switch end {
			case "the client cancelled":
				cancel()
			case "the network was cut":
				link.Cut()
				link.Heal()
			}
			streams.Wait()
			time.Sleep(soon) // the handlers have ended, too
			each(all, (*get).free)
			each(b.fill(), (*get).free)
			b.wantDials(3, "6 places were taken, and given back when "+end+", and taken again")
		}
	})
}
