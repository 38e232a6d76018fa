//go:build goexperiment.goroutineleakprofile

// These tests need a program that was built with the experiment:
//
//	GOEXPERIMENT=goroutineleakprofile go test -run LeakProfile ./chapters/32-inspect
//
// The first time that builds everything again, the standard library included.
package main

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
	"weak"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// kept is what makes a channel reachable for as long as the program runs.
var kept []any

// Each of these waits for ever, under a name of its own.

func sendsToNobody(lines chan<- int)       { lines <- 1 }
func sendsToAKeptChannel(lines chan<- int) { lines <- 1 }
func pumpsToNobody(stream watchClient, lines chan<- *feedv1.Event) {
	for {
		ev, err := stream.Recv()
		if err != nil {
			return
		}
		lines <- ev
	}
}
func waitsInRecv(stream watchClient) {
	for {
		if _, err := stream.Recv(); err != nil {
			return
		}
	}
}
func awaitsALostContext(ctx context.Context)      { <-ctx.Done() }
func awaitsAContextWithTimer(ctx context.Context) { <-ctx.Done() }
func awaitsAChildOfALiveOne(ctx context.Context)  { <-ctx.Done() }

// parked waits until a goroutine that has the function on its stack waits.
func parked(t *testing.T, function string) {
	t.Helper()
	buf := make([]byte, 4<<20)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			header, frames, _ := strings.Cut(g, "\n")
			if strings.Contains(frames, function+"(") && (strings.Contains(header, "[chan ") || strings.Contains(header, "[select")) {
				return
			}
		}
	}
	t.Fatalf("%s does not wait", function)
}

// leaked takes a leak profile, which runs a garbage collection of its own
// (runtime/pprof/pprof.go, writeGoroutineLeak), and counts the function's.
func leaked(function string) (n int) {
	for _, g := range profile("goroutineleak") {
		if strings.Contains(g.frames, function+"+") {
			n += g.n
		}
	}
	return n
}

// The rule (runtime/mgc.go, isMaybeRunnable): a goroutine is leaked if it waits
// for channels or locks that no goroutine can reach which may still run, and no
// global, nor a timer. A reader of a connection waits for the network, so it
// may run, and it reaches the streams of its connection.
func TestTheLeakProfileFindsWhatNobodyCanReach(t *testing.T) {
	_, conn := served(t)
	client := feedv1.NewFeedServiceClient(conn)
	live, cancelAll := context.WithCancel(context.Background())
	defer cancelAll()
	kept = append(kept, live)
	watch := func() watchClient {
		stream, err := client.Watch(live, &feedv1.WatchRequest{Topic: "alerts"})
		if err != nil {
			t.Error(err)
		}
		return stream
	}
	text := fmt.Sprintf("%-64s %s\n", "a goroutine that waits for ever", "leak profile")
	for _, leak := range []struct {
		what, function string
		start          func() // on a goroutine that then ends
		found          bool
	}{
		{"in a send, the channel is known to it alone", "main.sendsToNobody", func() { go sendsToNobody(make(chan int)) }, true},
		{"in a send, a global knows the channel", "main.sendsToAKeptChannel", func() {
			lines := make(chan int)
			kept = append(kept, lines)
			go sendsToAKeptChannel(lines)
		}, false},
		{"in a send, a pump whose reader has left, the stream open", "main.pumpsToNobody", func() { go pumpsToNobody(watch(), make(chan *feedv1.Event)) }, true},
		{"in Recv", "main.waitsInRecv", func() { go waitsInRecv(watch()) }, false},
		{"gRPC's watcher of a stream that was left", watcher, func() { firstEvent(live, client, "alerts") }, false},
		{"a handler whose client has left the stream", "(*server).watch", func() {}, false},
		{"for a context of which the cancel is lost", "main.awaitsALostContext", func() {
			ctx, cancel := context.WithCancel(context.Background())
			_ = cancel
			go awaitsALostContext(ctx)
		}, true},
		{"for the same, with a deadline in a year: a timer knows it", "main.awaitsAContextWithTimer", func() {
			ctx, cancel := context.WithTimeout(context.Background(), 365*24*time.Hour)
			_ = cancel
			go awaitsAContextWithTimer(ctx)
		}, false},
		{"for the same, made from a context that is in use", "main.awaitsAChildOfALiveOne", func() {
			ctx, cancel := context.WithCancel(live)
			_ = cancel
			go awaitsAChildOfALiveOne(ctx)
		}, false},
	} {
		done := make(chan struct{})
		go func() { defer close(done); leak.start() }()
		<-done
		function := strings.Replace(leak.function, "main.", "chapters/32-inspect.", 1)
		parked(t, function)
		found := false
		for range 100 { // its channel may still lie on a stack that is in use
			if found = leaked(function) > 0; found || !leak.found {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if found != leak.found {
			t.Errorf("%s: found is %v, want %v", leak.what, found, leak.found)
		}
		text += fmt.Sprintf("%-64s %s\n", leak.what, map[bool]string{true: "found", false: "not found"}[found])
	}
	lab.Golden(t, "leakprofile.txt", text)
}

// A wait in a bubble has a name of its own, which the profile does not look at.
// The test keeps the channel by a weak pointer, which counts for nothing.
func TestTheLeakProfileIsBlindInABubble(t *testing.T) {
	send := func() weak.Pointer[box] {
		back := make(chan weak.Pointer[box])
		go func() {
			b := &box{make(chan int)}
			go b.waits()
			back <- weak.Make(b)
		}()
		return <-back
	}
	outside := leaked("(*box).waits") + 1 // with -count those of the runs before
	send()                                // stays: to wake a goroutine that was found leaked is a fatal error
	parked(t, "(*box).waits")
	for n := 0; leaked("(*box).waits") < outside; n++ {
		if n == 100 {
			t.Fatal("not found outside a bubble")
		}
		time.Sleep(time.Millisecond)
	}
	lab.Run(t, func(l *lab.Lab) {
		free := send()
		l.Settle()
		if n := leaked("(*box).waits"); n != outside {
			l.Errorf("%d are found, one in a bubble and %d outside, want %[2]d", n, outside)
		}
		<-free.Value().lines
	})
}

// A box has a channel that the goroutine in waits knows alone.
type box struct{ lines chan int }

func (b *box) waits() {
	b.lines <- 1
	runtime.KeepAlive(b)
}
