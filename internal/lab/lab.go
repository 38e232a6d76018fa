// Package lab is the bench on which the workbook's tests run: a virtual
// network in virtual time with a recorder on the wire, a leak check that works
// while the connection is still open, and limits that give code which never
// ends a named verdict.
//
// A test is one Run. Everything in it happens in a testing/synctest bubble:
// time moves only when every goroutine waits, so hours cost milliseconds and
// the same thing happens each time.
package lab

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
)

// A Lab is the bench of one test. It is the test's testing.TB, with these
// differences: FailNow and Fatal may be called by the body although it does
// not run on the test's own goroutine, and Skip panics.
type Lab struct {
	testing.TB
	virtual bool
	lasts   time.Duration // in the bubble's time
	real    time.Duration

	start    time.Time
	bubble   atomic.Value  // string: how goroutine dumps name this test's bubble
	arrivals atomic.Uint64 // reads of data on its links: a sign that the test goes on
	baseline goleak.Option // what was there before the test
	ctx      *labContext
	calls    calls

	mu      sync.Mutex
	said    []string // failures so far, for a verdict that ends the process
	grace   time.Duration
	links   []*Link
	servers []*grpc.Server
	conns   []*grpc.ClientConn
}

// An Option changes a limit of Run.
type Option func(*Lab)

// Lasts sets how much virtual time the test may take, 10 minutes if not set.
// Without such a limit a wait that never ends would run virtual time on for
// years, because the connection's timers never stop.
func Lasts(d time.Duration) Option { return func(l *Lab) { l.lasts = d } }

// RealLimit sets how much real time may pass in which nothing arrives on a
// link, 8 s if not set, and a quarter of what the test may take in all. Only
// code that keeps virtual time from moving comes near it.
func RealLimit(d time.Duration) Option { return func(l *Lab) { l.real = d } }

// grace is how long, in virtual time and beside the round trips, what was
// released may take to end: a cancel crosses the network, a handler returns.
const grace = time.Second

// Run runs body on a new bench in a bubble of virtual time. When body has
// returned, Run checks that nothing is left while the connections are open
// (see Lab.Leaks), closes what was opened on the bench, and checks that not
// one goroutine of the test is left.
func Run(t *testing.T, body func(*Lab), opts ...Option) {
	t.Helper()
	l := newLab(opts)
	l.virtual = true
	defer l.watch(t)()
	defer func() {
		// A goroutine that is left when the bubble ends makes synctest panic
		// here, in the caller. The closed check has reported it by then.
		if r := recover(); r != nil && !t.Failed() {
			panic(r)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		l.TB = t
		l.run(body)
	})
}

// OverTCP runs body on a bench in real time whose links are TCP connections
// on loopback, for what the virtual network must agree on with a real one.
func OverTCP(t *testing.T, body func(*Lab), opts ...Option) {
	t.Helper()
	l := newLab(opts)
	l.TB = t
	defer l.watch(t)()
	l.run(body)
}

func newLab(opts []Option) *Lab {
	l := &Lab{lasts: 10 * time.Minute, real: 8 * time.Second, grace: grace}
	for _, opt := range opts {
		opt(l)
	}
	return l
}

// run runs body on a goroutine of its own, so that a body which never returns
// leaves this one free to say so.
func (l *Lab) run(body func(*Lab)) {
	l.Helper()
	l.start = time.Now()
	l.ctx = &labContext{Context: l.TB.Context(), done: make(chan struct{}), children: map[*child]bool{}}
	l.baseline = baseline()
	l.bubble.Store(current().bubble)
	l.within(l.lasts, "the test", func() {
		body(l)
		if leaks := l.Leaks(); len(leaks) > 0 && !l.Failed() {
			l.Errorf("%s", strings.Join(leaks, "\n"))
		}
	})
	failed := l.Failed() // the first failure says what is wrong; what it left does not
	l.close()
	if left, _ := l.left(l.baseline); len(left) > 0 && !failed {
		l.Errorf("after everything was closed: %s", strings.Join(left, "\n"))
	}
}

// within runs f on a goroutine of its own and reports whether it returned. It
// says so if f takes longer than limit, panics, or ends in runtime.Goexit
// without a failure of its own.
func (l *Lab) within(limit time.Duration, name string, f func()) bool {
	l.Helper()
	returned := false
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil { // the panic's frames still stand on the stack
				l.Errorf("%s panicked: %v (%s)", name, r, caller())
			} else if !returned && !l.Failed() {
				l.Errorf("%s ended in runtime.Goexit", name)
			}
		}()
		f()
		returned = true
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return returned
	case <-timer.C:
		l.Errorf("%s has not returned after %v:\n%s", name, limit, l.Stuck())
		return false
	}
}

// close ends everything that was opened on the bench. Stop and not
// GracefulStop: a handler that ignores its context must not hold up the test.
// A server with WaitForHandlers would wait for one, so it is not waited for.
func (l *Lab) close() {
	l.ctx.end()
	for _, link := range l.links {
		link.Heal() // or nobody learns of the end
	}
	for _, conn := range l.conns {
		conn.Close()
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for _, srv := range l.servers {
			srv.Stop()
		}
	}()
	select {
	case <-stopped:
	case <-time.After(l.grace):
	}
	if l.virtual {
		time.Sleep(l.grace)
	}
}

// Error records the failure for a verdict that ends the process, too: what
// package testing has buffered by then is lost.
func (l *Lab) Error(args ...any) {
	l.Helper()
	l.say(fmt.Sprintln(args...))
	l.TB.Error(args...)
}

// Errorf is Error with a format.
func (l *Lab) Errorf(format string, args ...any) {
	l.Helper()
	l.say(fmt.Sprintf(format, args...))
	l.TB.Errorf(format, args...)
}

func (l *Lab) say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, strings.TrimSpace(text))
}

// FailNow ends the body.
func (l *Lab) FailNow() {
	l.Fail()
	runtime.Goexit()
}

// Fatal is Error and FailNow.
func (l *Lab) Fatal(args ...any) {
	l.Helper()
	l.Error(args...)
	runtime.Goexit()
}

// Fatalf is Errorf and FailNow.
func (l *Lab) Fatalf(format string, args ...any) {
	l.Helper()
	l.Errorf(format, args...)
	runtime.Goexit()
}

// Skip panics: a test of the workbook either holds or fails.
func (l *Lab) Skip(...any) { panic("lab: tests are not skipped") }

// Skipf panics like Skip.
func (l *Lab) Skipf(string, ...any) { l.Skip() }

// SkipNow panics like Skip.
func (l *Lab) SkipNow() { l.Skip() }

// Elapsed is the time since Run began, virtual in a bubble.
func (l *Lab) Elapsed() time.Duration { return time.Since(l.start) }

// Call runs f, which calls the function under test: name says which. If f has
// not returned after limit (virtual time in a bubble), or if it panics, the
// test ends with a message that says where in the answer.
func (l *Lab) Call(name string, limit time.Duration, f func()) {
	l.Helper()
	if !l.within(limit, name, f) {
		l.FailNow()
	}
}

// Settle returns when every other goroutine of the test waits for something, or
// is in Settle as well. A fake that stands for a slow call lets others run by
// it, and not by a sleep: synctest does not count a goroutine that waits for a
// mutex as waiting (durably blocked), so while an answer holds its lock over
// the slow call and another goroutine wants it, virtual time does not move.
func (l *Lab) Settle() {
	self := current()
	for slices.ContainsFunc(dump(), func(g goroutine) bool {
		return g.id != self.id && (g.bubble == self.bubble && g.busy() && !g.settles() || g.collects())
	}) {
		for range 10 { // a dump stops the world
			runtime.Gosched()
		}
	}
}

// LockWanted reports whether a goroutine of the test waits for a mutex: while
// one does, virtual time does not move, and a sleep would not end. Call Settle
// first, so that whoever is on the way to the lock has got there.
func (l *Lab) LockWanted() bool {
	self := current()
	return slices.ContainsFunc(dump(), func(g goroutine) bool {
		return g.bubble == self.bubble && (strings.HasPrefix(g.state, "sync.Mutex") || strings.HasPrefix(g.state, "sync.RWMutex"))
	})
}

// watch ends the process with a verdict when nothing has arrived on a link for
// l.real of real time, or when the test has taken four times that: code that
// spins, or that waits for a mutex, keeps virtual time from moving, and nothing
// else can end it. What arrives shows that virtual time moves, on a busy machine
// slowly. What the test had already found wrong is the better verdict. It runs
// outside the bubble, on a goroutine that is there before the test, so that no
// leak check takes it for the test's. The returned function calls it off.
func (l *Lab) watch(t *testing.T) (stop func()) {
	tick := time.NewTicker(l.real / 16)
	off := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		seen := l.arrivals.Load()
		for still, all := 0, 0; still < 16 && all < 4*16; all++ {
			select {
			case <-off:
				return
			case <-tick.C:
			}
			still++
			if n := l.arrivals.Load(); n != seen {
				seen, still = n, 0
			}
		}
		l.end(t)
	})
	return func() {
		tick.Stop()
		close(off)
		watching.Wait()
	}
}

// end ends the process with the verdict that the test has not ended.
func (l *Lab) end(t *testing.T) {
	l.mu.Lock()
	why := strings.Join(l.said, "\n")
	l.mu.Unlock()
	if why == "" {
		why = fmt.Sprintf("the test has not ended after %v of real time:\n%s", l.real, l.Stuck())
	}
	mark := ""
	if v := flag.Lookup("test.v"); v != nil && v.Value.String() == "test2json" {
		mark = "\x16" // tells go test -json that this line is not the program's output
	}
	fmt.Printf("\n%s--- FAIL: %s (%.2fs)\n    %s\n%sFAIL\n", mark, t.Name(), l.real.Seconds(),
		strings.ReplaceAll(why, "\n", "\n    "), mark)
	os.Exit(1)
}
