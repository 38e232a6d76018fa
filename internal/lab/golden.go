package lab

import (
	"context"
	"flag"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite recordings such as wire.txt with what the test saw")

// Golden compares got with the recording in file. With -update it writes it.
func Golden(t testing.TB, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (go test -update makes it)", err)
	}
	if got != string(want) {
		t.Errorf("%s is not what the test saw (go test -update rewrites it):\n%s", file, got)
	}
}

// EndsWell runs a chapter's program over loopback TCP and wants it to return
// and to leave nothing behind: once to its end, once for each line that it
// prints, interrupted there as if by Ctrl-C, and once more interrupted at its
// first line and at a pace at which only an interrupt ends it.
func EndsWell(t *testing.T, run func(ctx context.Context, w io.Writer, pace time.Duration) error, opts ...Option) {
	t.Helper()
	tell := func(stopAt int, pace time.Duration) (lines int) {
		OverTCP(t, func(l *Lab) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			out := &story{stopAt: stopAt, stop: cancel}
			start := time.Now()
			err := run(ctx, out, pace)
			lines = out.lines
			switch {
			case stopAt > 0:
			case err != nil || lines < 2:
				l.Errorf("run printed %d lines and returned error %v", lines, err)
			default:
				l.Logf("%d lines in %v", lines, time.Since(start).Round(time.Millisecond))
			}
			if left, streams := l.left(l.baseline); len(left)+streams > 0 {
				l.Errorf("interrupted at line %d (0 is never), run left %d open streams and %s", stopAt, streams, strings.Join(left, "\n"))
			}
		}, opts...)
		return lines
	}
	for line, lines := 1, tell(0, 0); line <= lines && !t.Failed(); line++ {
		tell(line, 0)
	}
	if !t.Failed() {
		tell(1, time.Hour)
	}
}

// story counts the lines that a program prints, from any goroutine, and
// interrupts it at one.
type story struct {
	mu     sync.Mutex
	lines  int
	stopAt int
	stop   func()
}

func (s *story) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range strings.Count(string(b), "\n") {
		if s.lines++; s.lines == s.stopAt {
			s.stop()
		}
	}
	return len(b), nil
}
