package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// listen hears one reply and lets the pump receive the next.
func listen(ctx context.Context, l *lab.Lab, client feedv1.FeedServiceClient, pump pumpFunc) *inbox {
	l.Helper()
	in, err := hear(ctx, client, pump)
	if err != nil {
		l.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond)
	return in
}

// ended reports whether the pump has ended. From one that waits for a reader
// it takes the line.
func ended(in *inbox) bool {
	select {
	case _, open := <-in.lines:
		return !open
	default: // in Recv
		return false
	}
}

// A census counts what has not ended.
type census struct{ rpcs, handlers, hearing, receiving, holding int }

// count takes a census from a dump of all goroutines. The one for each RPC is
// started in grpc-go's stream.go, newClientStreamWithParams.
func count() (c census) {
	buf := make([]byte, 32<<20)
	dump := string(buf[:runtime.Stack(buf, true)])
	for g := range strings.SplitSeq(dump, "\n\n") {
		inRecv := strings.Contains(g, "RecvMsg(")
		switch {
		case strings.Contains(g, "grpc.newClientStreamWithParams in goroutine"):
			c.rpcs++
		case strings.Contains(g, "_FeedService_Chat_Handler(") && inRecv:
			c.hearing++
		case strings.Contains(g, "_FeedService_Chat_Handler("):
			c.handlers++
		case !strings.Contains(g, ".pump in goroutine") && !strings.Contains(g, ".pumpBlindly in goroutine"):
		case inRecv:
			c.receiving++
		default:
			c.holding++
		}
	}
	return c
}

// await takes a census until it is want, for ten seconds at most.
func await(want census) (c census) {
	for range 1000 {
		if c = count(); c == want {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	return c
}

func (c census) String() string {
	var all []string
	for _, left := range []struct {
		n    int
		what string
	}{{c.rpcs, "RPC"}, {c.hearing, "handler in Recv"}, {c.handlers, "handler"}, {c.receiving, "pump in Recv"}, {c.holding, "pump in lines <-"}} {
		switch {
		case left.n == 1:
			all = append(all, left.what)
		case left.n > 1:
			all = append(all, fmt.Sprint(left.n, " × ", left.what))
		}
	}
	if len(all) == 0 {
		return "nothing"
	}
	return strings.Join(all, ", ")
}

// goleakSays is goleak's report as a recording has it. The channel goes idle
// after half an hour, which renews its serializers.
func goleakSays(baseline goleak.Option) string {
	const serializer = "google.golang.org/grpc/internal/grpcsync.(*CallbackSerializer).run"
	return strings.Join(lab.Goleak(baseline, goleak.IgnoreAnyFunction(serializer)), "\n") + "\n"
}

// The recording that the README shows, with what goleak finds a day later.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(server{chat: func(stream chatServer) error {
			err := answerTwice(stream)
			link.Note(lab.Server, "the handler returns")
			return err
		}})
		client := feedv1.NewFeedServiceClient(link.Dial())
		ctx, cancel := context.WithCancel(l.Context())
		baseline := goleak.IgnoreCurrent()
		in, err := hear(ctx, client, pumpBlindly)
		if err != nil {
			l.Fatal(err)
		}
		link.Note(lab.Client, "the reader has one reply, the pump has the next")
		time.Sleep(10 * time.Millisecond)
		link.Note(lab.Client, "the reader cancels and leaves")
		cancel()
		time.Sleep(time.Second)
		ladder := link.Ladder()
		time.Sleep(24 * time.Hour)
		if rpcs := l.RPCs(); len(rpcs) != 1 || !rpcs[0].Ended {
			l.Errorf("the RPCs are %+v, want one that has ended", rpcs)
		}
		lab.Golden(t, "wire.txt", ladder+"goleak, a day later:\n"+goleakSays(baseline))
		in.wait()
	}, lab.Lasts(25*time.Hour))
}

// growth counts what is left of up to 1,000 chats in both processes.
func growth(t *testing.T, pump pumpFunc, cancels bool) (sums []int, last census) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: answerTwice})
		all, cancelAll := context.WithCancel(l.Context())
		var inboxes []*inbox
		sums = []int{0}
		for range 4 {
			ctx, cancel := context.WithCancel(all)
			defer cancel()
			for range 250 {
				in, err := hear(ctx, client, pump)
				if err != nil {
					l.Fatal(err)
				}
				inboxes = append(inboxes, in)
			}
			time.Sleep(time.Second)
			if cancels {
				cancel()
				time.Sleep(time.Second)
			}
			last = count()
			sums = append(sums, last.rpcs+last.handlers+last.holding)
		}
		cancelAll()
		for _, in := range inboxes {
			in.wait()
		}
	}, lab.Lasts(time.Hour))
	return sums, last
}

func TestAThousandChatsLeaveAThousandPumps(t *testing.T) {
	alone, all := growth(t, pumpBlindly, false)
	cancelled, stuck := growth(t, pumpBlindly, true)
	repaired, none := growth(t, pump, true)
	if want := (census{rpcs: 1000, handlers: 1000, holding: 1000}); all != want {
		t.Errorf("without a cancel %v stay, want %v", all, want)
	}
	if want := (census{holding: 1000}); stuck != want {
		t.Errorf("after a cancel %v stay, want %v", stuck, want)
	}
	if none != (census{}) {
		t.Errorf("after a cancel pump leaves %v", none)
	}
	chart := "xychart-beta\n" +
		"    x-axis \"chats that have come and gone\" 0 --> 1000\n" +
		"    y-axis \"goroutines\" 0 --> 3000\n"
	for _, sums := range [][]int{alone, cancelled, repaired} {
		chart += "    line " + strings.ReplaceAll(fmt.Sprint(sums), " ", ", ") + "\n"
	}
	lab.Golden(t, "growth.mmd", chart)
	t.Logf("without a cancel: %v; with it: %v; with pump: %v", all, stuck, none)
}

func TestAStuckPumpKeepsAWindowOfMessages(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(server{chat: func(stream chatServer) error {
			for {
				if err := stream.Send(says(strings.Repeat("x", 1000))); err != nil {
					return err
				}
			}
		}})
		memory := func() int {
			link.Mark() // forgets the recording
			runtime.GC()
			runtime.GC() // now also what pools held
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return int(m.HeapAlloc + m.StackInuse)
		}
		const n = 200
		var inboxes []weak.Pointer[inbox] // only the pumps keep them
		before := memory()
		for range n {
			ctx, cancel := context.WithCancel(l.Context())
			inboxes = append(inboxes, weak.Make(listen(ctx, l, client, pumpBlindly)))
			cancel()
			link.Mark()
		}
		time.Sleep(time.Second)
		each := (memory() - before) / n
		if got, want := count(), (census{holding: n}); got != want {
			l.Errorf("after the cancels and a garbage collection %v stay, want %v", got, want)
		}
		if each < 70_000 || each > 90_000 {
			l.Errorf("what an RPC that has ended left keeps %d B, want 70 to 90 KB: a window of %d B and the pump", each, lab.Window)
		}
		l.Logf("%d RPCs have ended, and each left a pump that keeps %d KB", n, each/1000)
		for _, in := range inboxes {
			in.Value().wait()
		}
	})
}

// Two chats that nobody cancels: a pump in Recv and one that holds a line.
func TestClosingTheConnectionHidesOnlyThePumpInRecv(t *testing.T) {
	const (
		recv = "in state select, with google.golang.org/grpc/internal/transport.(*recvBufferReader).readMessageHeaderClient on top of the stack"
		send = "in state chan send, with main.pumpBlindly.func1 on top of the stack"
	)
	hides := func(l *lab.Lab, virtual bool) {
		link := l.NewLink()
		link.Serve(server{chat: answerTwice})
		conn := link.Dial()
		client := feedv1.NewFeedServiceClient(conn)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		baseline := goleak.IgnoreCurrent()
		<-listen(ctx, l, client, pumpBlindly).lines // the second reply, too
		in := listen(ctx, l, client, pumpBlindly)
		both := census{rpcs: 2, handlers: 2, receiving: 1, holding: 1}
		open := await(both)
		if virtual { // in real time goleak waits for 0.4 s, and once is enough
			if says := goleakSays(baseline); !strings.Contains(says, recv) || !strings.Contains(says, send) {
				l.Errorf("before conn.Close goleak does not name both waits:\n%s", says)
			}
		}
		conn.Close()
		closed := await(census{holding: 1})
		if says := goleakSays(baseline); !strings.Contains(says, send) || strings.Count(says, "Goroutine") != 1 {
			l.Errorf("after conn.Close goleak does not name the pump that holds a line, and no other:\n%s", says)
		}
		if open != both {
			l.Errorf("before conn.Close there are %v, want %v", open, both)
		}
		if want := (census{holding: 1}); closed != want {
			l.Errorf("after conn.Close there are %v, want %v", closed, want)
		}
		l.Logf("before conn.Close: %v; after it: %v", open, closed)
		in.wait()
	}
	t.Run("lab", func(t *testing.T) { lab.Run(t, func(l *lab.Lab) { hides(l, true) }) })
	t.Run("TCP", func(t *testing.T) { lab.OverTCP(t, func(l *lab.Lab) { hides(l, false) }) })
}

// A scene is one chat.
type scene struct {
	link   *lab.Link
	srv    *grpc.Server
	conn   *grpc.ClientConn
	stream chatClient
	ctx    context.Context // of the stream
	cancel context.CancelFunc
}

func open(ctx context.Context, l *lab.Lab, handler func(chatServer) error) scene {
	l.Helper()
	s := scene{link: l.NewLink()}
	s.srv = s.link.Serve(server{chat: handler})
	s.conn = s.link.Dial()
	var err error
	s.ctx, s.cancel = context.WithCancel(ctx)
	if s.stream, err = feedv1.NewFeedServiceClient(s.conn).Chat(s.ctx); err != nil {
		l.Fatal(err)
	}
	return s
}

// play opens a chat whose pump, on side, gets n lines. Its reader takes one.
// The handler returns when hangUp is called, and does not otherwise.
func play(ctx context.Context, l *lab.Lab, side lab.Side, pump pumpFunc, n int) (s scene, in *inbox, hangUp func()) {
	l.Helper()
	over, inboxes := make(chan struct{}), make(chan *inbox, 1)
	s = open(ctx, l, func(stream chatServer) error {
		if side == lab.Server {
			inboxes <- pump(stream.Context(), stream)
		}
		for range n {
			stream.Send(says("hello"))
		}
		<-over
		return nil
	})
	if side == lab.Client {
		inboxes <- pump(s.ctx, s.stream)
	}
	for range n {
		s.stream.Send(says("hello"))
	}
	in = <-inboxes
	<-in.lines
	time.Sleep(time.Second)
	return s, in, sync.OnceFunc(func() { close(over) })
}

// Every wait against every end, each in a lab of its own.
func TestNothingThatGRPCDoesEndsTheWaitForAReader(t *testing.T) {
	const limit = 10 * time.Second
	// cells says of each end whether it ended the pump.
	cells := func(side lab.Side, pump pumpFunc, lines int) (cells string) {
		for i, width := range []int{6, 8, 10, 15, 8, 0} {
			lab.Run(t, func(l *lab.Lab) {
				ctx, cancel := l.Context(), func() {}
				if i == 1 {
					ctx, cancel = context.WithTimeout(ctx, limit)
				}
				defer cancel()
				s, in, hangUp := play(ctx, l, side, pump, lines)
				[]func(){s.cancel, func() { time.Sleep(limit) }, func() { s.conn.Close() }, hangUp, s.srv.Stop, s.link.Cut}[i]()
				time.Sleep(time.Minute)
				cell := "stays"
				if ended(in) {
					cell = "ends"
				}
				cells += fmt.Sprintf("  %-*s", width, cell)
				s.cancel()
				hangUp()
				in.wait()
			})
		}
		return cells + "\n"
	}
	table := "side    the pump waits in         cancel  deadline  conn.Close  handler returns  srv.Stop  conn reset\n"
	for _, row := range []struct {
		wait  string
		pump  pumpFunc
		lines int
	}{
		{"Recv", pumpBlindly, 1},
		{"lines <-", pumpBlindly, 2},
		{"lines <- or <-ctx.Done()", pump, 2},
	} {
		client, server := cells(lab.Client, row.pump, row.lines), cells(lab.Server, row.pump, row.lines)
		if client == server {
			table += fmt.Sprintf("both    %-24s%s", row.wait, client)
		} else {
			table += fmt.Sprintf("client  %-24s%sserver  %-24s%s", row.wait, client, row.wait, server)
		}
	}
	lab.Golden(t, "ends.txt", table)
	t.Log("\n" + table)
}

// The chain: CloseSend, the server's EOF, the return, the client's EOF, the end
// of the pump. Each row breaks one link, waits a day, and tries the releases.
func TestEachMissingLinkLeavesSomething(t *testing.T) {
	hearAll := func(stream chatServer) error {
		for {
			if _, err := stream.Recv(); err != nil {
				return notEOF(err)
			}
		}
	}
	stay := func(stream chatServer) error { <-stream.Context().Done(); return nil }
	hearAndStay := func(stream chatServer) error { hearAll(stream); return stay(stream) }
	sayBye := func(stream chatServer) error { stream.Send(says("bye")); return hearAll(stream) }
	closeSend := func(stream chatClient) { stream.CloseSend() }
	unread := func(stream chatClient) *inbox { return pumpBlindly(context.Background(), stream) }
	read := func(stream chatClient) *inbox { in := unread(stream); go in.wait(); return in }
	format := "%-11s  %-34s  %-21s  %s\n"
	table := fmt.Sprintf(format, "missing", "a day later", "after cancel or Close", "after srv.Stop")
	for _, row := range []struct {
		link    string
		close   func(chatClient)
		handler func(chatServer) error
		receive func(chatClient) *inbox
	}{
		{"none", closeSend, hearAll, read},
		{"CloseSend", func(chatClient) {}, hearAll, read},
		{"server Recv", closeSend, stay, read},
		{"return", closeSend, hearAndStay, read},
		{"client Recv", closeSend, sayBye, func(stream chatClient) *inbox { stream.Recv(); return nil }},
		{"reader", closeSend, sayBye, unread},
	} {
		var cells []string
		for i := range 4 {
			lab.Run(t, func(l *lab.Lab) {
				s := open(l.Context(), l, row.handler)
				row.close(s.stream)
				in := row.receive(s.stream)
				time.Sleep(24 * time.Hour)
				[]func(){func() {}, s.cancel, func() { s.conn.Close() }, s.srv.Stop}[i]()
				time.Sleep(time.Second)
				cells = append(cells, count().String())
				s.cancel()
				if in != nil {
					in.wait()
				}
			}, lab.Lasts(25*time.Hour))
		}
		if cells[1] != cells[2] {
			t.Errorf("without %s a cancel leaves %s and conn.Close %s, want the same", row.link, cells[1], cells[2])
		}
		if row.link != "none" {
			table += fmt.Sprintf(format, row.link, cells[0], cells[1], cells[3])
		} else if cells[0] != "nothing" {
			t.Errorf("with every link there is %s a day later", cells[0])
		}
	}
	lab.Golden(t, "links.txt", table)
	t.Log("\n" + table)
}

// leaks reports whether a pump stays that hands over in another way, into a
// channel with room for size lines, when n lines come that nobody reads.
func leaks(t *testing.T, size, n int, handOver func(ctx context.Context, lines chan<- string, text string)) (leaks bool) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		s, in, hangUp := play(l.Context(), l, lab.Client, func(ctx context.Context, stream receiver) *inbox {
			lines := make(chan string, size)
			go func() {
				defer close(lines)
				for msg, err := stream.Recv(); err == nil; msg, err = stream.Recv() {
					handOver(ctx, lines, msg.GetText())
				}
			}()
			return &inbox{lines: lines}
		}, 1+n)
		s.cancel()
		hangUp()
		leaks = strings.Contains(strings.Join(l.Leaks(), "\n"), "blocked sending to a channel at main_test.go:")
		in.wait()
	})
	return leaks
}

func TestABufferMovesTheLeakByItsSize(t *testing.T) {
	for _, size := range []int{0, 1, 16} {
		for _, n := range []int{size, size + 1} {
			got := leaks(t, size, n, func(_ context.Context, lines chan<- string, text string) { lines <- text })
			if got != (n > size) {
				t.Errorf("with room for %d lines and %d that nobody reads the pump stays: %v", size, n, got)
			}
			t.Logf("room for %2d lines, %2d that nobody reads: the pump stays: %v", size, n, got)
		}
	}
}

// The pump asks, finds its reader there, and the reader leaves.
func TestToAskTheContextFirstIsNotEnough(t *testing.T) {
	if !leaks(t, 0, 1, func(ctx context.Context, lines chan<- string, text string) {
		select {
		case <-ctx.Done():
		default:
			lines <- text
		}
	}) {
		t.Error("the pump has ended, want it in the send")
	}
}

func TestACancelAndThenAReaderEndEitherPump(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: answerTwice})
		ctx, cancel := context.WithCancel(l.Context())
		in, repaired := listen(ctx, l, client, pumpBlindly), listen(ctx, l, client, pump)
		cancel()
		repaired.wait()
		var rest []string
		for line := range in.lines {
			rest = append(rest, line)
		}
		if !slices.Equal(rest, []string{"anything else?"}) || status.Code(in.err) != codes.Canceled || repaired.err != context.Canceled {
			l.Errorf("after the cancel pumpBlindly gave %q and %v, pump %v, want what the first held, and Canceled twice", rest, in.err, repaired.err)
		}
		l.Logf("after the cancel pumpBlindly gave %q, and then %v", rest, in.err)
	})
}

// To wait for the pump is right on the client. In a handler only the return
// ends the Recv for which it waits.
func TestAHandlerThatWaitsForItsPumpWaitsForItsClient(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := open(l.Context(), l, func(stream chatServer) error {
			in := pump(stream.Context(), stream)
			<-in.lines
			in.wait()
			return nil
		})
		defer s.cancel()
		s.stream.Send(says("hello"))
		time.Sleep(24 * time.Hour)
		if got, want := count(), (census{rpcs: 1, handlers: 1, receiving: 1}); got != want {
			l.Errorf("a day later there are %v, want %v", got, want)
		}
		l.Logf("a day after the handler began to wait: %v", count())
	}, lab.Lasts(25*time.Hour))
}

func TestAnErrorThatNobodyAwaitsNeedsOnePlace(t *testing.T) {
	for places, want := range []bool{true, false} {
		lab.Run(t, func(l *lab.Lab) {
			s := open(l.Context(), l, answerTwice)
			ended := make(chan error, places)
			go func() {
				_, err := s.stream.Recv()
				ended <- err // the only value, ever
			}()
			s.cancel()
			if got := len(l.Leaks()) > 0; got != want {
				l.Errorf("with %d places the goroutine stays: %v, want %v", places, got, want)
			}
			l.Logf("%d places: the goroutine stays: %v", places, want)
			<-ended
		})
	}
}

// The error that ends Recv also ends the stream's context (stream.go,
// (*clientStream).finish), so both cases are ready.
func TestTheStreamsContextLosesTheEnd(t *testing.T) {
	const n = 1000
	lost := 0
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(server{chat: func(chatServer) error { return nil }})
		for range n {
			stream, err := client.Chat(l.Context())
			if err != nil {
				l.Fatal(err)
			}
			ended := make(chan error, 1) // somebody awaits it
			_, err = stream.Recv()
			select {
			case ended <- err:
			case <-stream.Context().Done():
				lost++
			}
		}
	}, lab.Lasts(time.Hour))
	if lost < n/4 || lost > n*3/4 {
		t.Errorf("%d of %d ends were lost, want about half", lost, n)
	}
	t.Logf("a select with stream.Context() lost %d of %d ends", lost, n)
}
