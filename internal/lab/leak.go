package lab

import (
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

// transport returns goleak options that ignore the goroutines which a healthy
// connection or listener keeps, by a function on their stack. A baseline would
// not do: a reconnect, or a channel that goes idle after 30 minutes, renews
// them in a right answer.
func transport() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("google.golang.org/grpc.(*Server).Serve"),
		goleak.IgnoreTopFunction("google.golang.org/grpc.(*Server).serverWorker"),  // idle, with grpc.NumStreamWorkers; a handler may run on one
		goleak.IgnoreAnyFunction("google.golang.org/grpc.(*Server).handleRawConn"), // while it shakes hands
		goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run"),
		goleak.IgnoreAnyFunction("google.golang.org/grpc.(*addrConn).resetTransportAndUnlock"),     // between two tries
		goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/transport.NewHTTP2Client.func4"), // while it shakes hands
		goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/transport.(*http2Client).reader"),
		goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/transport.(*http2Client).keepalive"),
		goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/transport.(*http2Server).HandleStreams"),
		goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/transport.(*http2Server).keepalive"),
		goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/transport.(*loopyWriter).run"),
	}
}

// Leaks says what should have ended and has not, while the connections are
// still open: RPCs that never ended, handlers that still run, and goroutines
// that the test's code started. It is empty if all is well. Before it looks it
// gives what was released a second of virtual time, and twice the round trip,
// to end. A context that the test itself made from Context counts too, until
// it is cancelled.
func (l *Lab) Leaks() []string {
	if l.virtual {
		time.Sleep(l.grace)
		synctest.Wait()
	}
	left, streams := l.left(append(transport(), l.baseline)...) // first: over TCP this waits until what can end has ended
	left = append(left, l.ctx.forgotten()...)
	var open []string
	rpcs := l.RPCs()
	for _, rpc := range rpcs {
		if !rpc.Ended {
			open = append(open, fmt.Sprintf("%s, opened at %s", rpc.Method, rpc.OpenedAt))
		}
	}
	if n := len(open); n > 0 {
		left = slices.Insert(left, 0, fmt.Sprintf("%d of %d RPCs never ended (%s)", n, len(rpcs), strings.Join(tally(open), "; ")))
	}
	if n := streams - len(open); n > 0 {
		left = append(left, fmt.Sprintf("%d streams never ended that were opened past the lab's own connections", n))
	}
	return left
}

// left names the goroutines that goleak finds. The watchers of client streams
// are counted apart: each stands for an RPC that never ended.
func (l *Lab) left(ignore ...goleak.Option) (lines []string, streams int) {
	ids := l.find(ignore...)
	if len(ids) == 0 {
		return nil, 0
	}
	for _, g := range dump() {
		method, handles := g.inHandler()
		switch {
		case !ids[g.id]:
		case g.parent.fn == "google.golang.org/grpc.newClientStreamWithParams":
			streams++
		case handles:
			lines = append(lines, fmt.Sprintf("the server's %s handler still runs: %s", method, g.doing()))
		case g.parent.name() == "NewCallbackSerializer":
			lines = append(lines, "a grpc.ClientConn was not closed")
		default:
			started := "at " + g.parent.place()
			if !g.parent.isUser() {
				started = "by " + path.Base(g.parent.fn) // sync.(*WaitGroup).Go: g.doing says where
			}
			lines = append(lines, fmt.Sprintf("a goroutine that was started %s still runs: %s", started, g.doing()))
		}
	}
	return tally(lines), streams
}

// find returns the ids of the goroutines that goleak finds. goleak v1.3.0
// panics when any goroutine of the process has more than 100 frames, which a
// dump elides; then those of the test are what is found.
func (l *Lab) find(ignore ...goleak.Option) (ids map[string]bool) {
	ids = map[string]bool{}
	defer func() {
		if recover() != nil {
			for _, g := range dump() {
				if g.elided && g.bubble == l.bubble.Load() {
					ids[g.id] = true
				}
			}
		}
	}()
	if err := goleak.Find(ignore...); err != nil {
		for _, m := range regexp.MustCompile(`Goroutine (\d+) in state`).FindAllStringSubmatch(err.Error(), -1) {
			ids[m[1]] = true
		}
	}
	return ids
}

// Goleak returns what goleak.Find reports, one text for each goroutine, sorted,
// for a recording: without what differs from run to run and from machine to
// machine (numbers, arguments, folders, offsets), and without the frames of
// gRPC, of the lab and of tests between the first line and the last.
func Goleak(opts ...goleak.Option) []string {
	err := goleak.Find(opts...)
	if err == nil {
		return nil
	}
	var all []string
	for _, entry := range strings.Split(err.Error(), "Goroutine ")[1:] {
		lines := strings.Split(strings.TrimRight(Brief("Goroutine "+entry), "\n []"), "\n")
		text := lines[:1]
		for i := 1; i+1 < len(lines); i += 2 { // a function, and below it its place
			hidden := strings.HasPrefix(lines[i], "google.golang.org/") || strings.HasPrefix(lines[i], labPkg) || strings.Contains(lines[i+1], "_test.go:")
			if !hidden || strings.HasPrefix(lines[i], "created by ") {
				text = append(text, lines[i]+"  "+strings.TrimSpace(lines[i+1]))
			}
		}
		all = append(all, strings.Join(text, "\n"))
	}
	slices.Sort(all)
	return all
}

// Brief takes from a goroutine dump, or from goleak's report, what differs
// from run to run and from machine to machine.
func Brief(dump string) string {
	for _, r := range [][2]string{
		{`oroutine \d+`, "oroutine N"},
		{`( \(durable\))?, synctest bubble \d+`, ""},
		{`(?m)\([^()*]+\)$`, "(…)"},
		{`example\.com/mygrpc/chapters/[^./]+`, "main"},
		{`(?m)^\t\S*/(\S+:\d+)( \+0x\w+)?$`, "    $1"},
	} {
		dump = regexp.MustCompile(r[0]).ReplaceAllString(dump, r[1])
	}
	return dump
}

// baseline is goleak.IgnoreCurrent, which panics as find says.
func baseline() (ignore goleak.Option) {
	defer func() {
		if recover() != nil {
			ignore = goleak.IgnoreTopFunction("")
		}
	}()
	return goleak.IgnoreCurrent()
}

// tally sorts lines and counts equal ones.
func tally(lines []string) []string {
	count := map[string]int{}
	for _, line := range lines {
		count[line]++
	}
	var out []string
	for _, line := range slices.Sorted(maps.Keys(count)) {
		if n := count[line]; n > 1 {
			line = fmt.Sprintf("%s (%d times)", line, n)
		}
		out = append(out, line)
	}
	return out
}

// Stuck says what the goroutines of the program under test wait for, such as
// "blocked in Recv at answer.go:23", one line each. Those that run come alone:
// the others wait for them. If there are goroutines in answer.go, those of the
// test are left out.
func (l *Lab) Stuck() string {
	self := current()
	if self.bubble != "" && !l.LockWanted() { // or the sleep would not end
		time.Sleep(time.Nanosecond) // let run what is due at this very instant
	}
	// From outside, a goroutine that spins may be seen at a moment when it is
	// in nobody's code.
	for range 100 {
		if lines := l.stuck(self); len(lines) > 0 {
			return strings.Join(tally(lines), "\n")
		}
		if self.bubble != "" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	return "no goroutine of the test is left"
}

func (l *Lab) stuck(self goroutine) []string {
	// The first that is not empty is what the test is stuck in.
	var spinning, answers, programs, tests []string
	for _, g := range dump() {
		at, callee, ok := g.user()
		line := g.doing()
		if !ok && g.parent.isUser() {
			at, ok = g.parent, true
			line += ", started at " + at.place()
		}
		if !ok || g.bubble != l.bubble.Load() || g.id == self.id || callee.pkg() == labPkg && !callee.isUser() {
			continue // not of this test, or the test's own wait for the lab
		}
		switch {
		case g.state == "running", g.state == "runnable":
			spinning = append(spinning, line)
		case strings.HasSuffix(at.file, "answer.go"):
			answers = append(answers, line)
		case at.isTest():
			tests = append(tests, line)
		default:
			programs = append(programs, line)
		}
	}
	for _, lines := range [][]string{spinning, answers, programs, tests} {
		if len(lines) > 0 {
			return lines
		}
	}
	return nil
}
