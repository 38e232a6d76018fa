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

// EndsWell runs a chapter's program over loopback TCP: once to its end, and
// then once for each line that it prints, interrupted at that line as if by
// Ctrl-C. Each time it must return and leave nothing behind.
func EndsWell(t *testing.T, run func(ctx context.Context, w io.Writer, pace time.Duration) error) {
	t.Helper()
	lines := 1
	for stopAt := 0; stopAt <= lines; stopAt++ {
		OverTCP(t, func(l *Lab) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			out := &story{stopAt: stopAt, stop: cancel}
			start := time.Now()
			err := run(ctx, out, 0)
			switch took := time.Since(start); {
			case stopAt > 0:
			case err != nil:
				l.Errorf("run returned %v", err)
			case out.lines < 2:
				l.Errorf("run printed %d lines", out.lines)
			default:
				l.Logf("%d lines in %v", out.lines, took.Round(time.Millisecond))
			}
			lines = max(lines, out.lines)
			if left := l.left(l.baseline); len(left) > 0 {
				l.Errorf("interrupted at line %d (0 is never), run left behind: %s", stopAt, strings.Join(left, "\n"))
			}
		})
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
