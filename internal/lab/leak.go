package lab

import (
	"fmt"
	"maps"
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
		goleak.IgnoreAnyFunction("google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run"),
		goleak.IgnoreAnyFunction("google.golang.org/grpc.(*addrConn).resetTransportAndUnlock"), // between two tries
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
// gives what was released one second of virtual time to end.
func (l *Lab) Leaks() []string {
	if l.virtual {
		time.Sleep(grace)
		synctest.Wait()
	}
	left := l.left(append(transport(), l.baseline)...) // first: over TCP this waits until what can end has ended
	var open []string
	rpcs := l.RPCs()
	for _, rpc := range rpcs {
		if !rpc.Ended {
			open = append(open, fmt.Sprintf("%s, opened at %s", rpc.Method, rpc.OpenedAt))
		}
	}
	if n := len(open); n > 0 {
		return append([]string{fmt.Sprintf("%d of %d RPCs never ended (%s)", n, len(rpcs), strings.Join(tally(open), "; "))}, left...)
	}
	return left
}

// left names the goroutines that goleak finds. A client stream's own watcher
// is left out: it stands for an RPC that never ended.
func (l *Lab) left(ignore ...goleak.Option) []string {
	err := goleak.Find(ignore...)
	if err == nil {
		return nil
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(`Goroutine (\d+) in state`).FindAllStringSubmatch(err.Error(), -1) {
		ids[m[1]] = true
	}
	var lines []string
	for _, g := range dump() {
		method, handles := g.inHandler()
		switch {
		case !ids[g.id], g.parent.fn == "google.golang.org/grpc.newClientStreamWithParams":
		case handles:
			lines = append(lines, fmt.Sprintf("the server's %s handler still runs: %s", method, g.doing()))
		case g.parent.name() == "NewCallbackSerializer":
			lines = append(lines, "a grpc.ClientConn was not closed")
		default:
			lines = append(lines, fmt.Sprintf("a goroutine that was started at %s still runs: %s", g.parent.place(), g.doing()))
		}
	}
	return tally(lines)
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

// stuck says what the goroutines of the program under test wait for. Those
// that keep virtual time from moving come alone: the others wait for them.
func (l *Lab) stuck() string {
	self := current().id
	var tests, answers, spinning []string
	for _, g := range dump() {
		at, callee, ok := g.user()
		if !ok || g.bubble != l.bubble.Load() || callee.pkg() == labPkg && !callee.isUser() {
			continue // not of this test, or the test's own wait for the lab
		}
		switch {
		case !g.gives && g.id != self:
			spinning = append(spinning, g.doing())
		case at.isTest():
			tests = append(tests, g.doing())
		default:
			answers = append(answers, g.doing())
		}
	}
	for _, lines := range [][]string{spinning, answers, tests} {
		if len(lines) > 0 {
			return strings.Join(tally(lines), "\n")
		}
	}
	return "no goroutine of the test is left"
}
