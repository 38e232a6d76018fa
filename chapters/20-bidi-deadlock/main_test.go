package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// quota is how many bytes a stream may schedule before it has written some of
// them (grpc's internal/transport/defaults.go, defaultWriteQuota).
const quota = 64 << 10

// wire is how many bytes of a stream a line takes: its encoding, and gRPC's 5
// bytes before it.
func wire(text int) int {
	return proto.Size(&feedv1.ChatMessage{Text: strings.Repeat("x", text)}) + 5
}

func ceil(a, b int) int { return (a + b - 1) / b }

// stalls is the formula: how many Sends return on either side if the client
// reads nothing and the handler echoes. size is what a message takes of its
// stream, at most the 16,384 B of a DATA frame.
//
// The handler's Send blocks when window and quota are used up (chapter 19). By
// then it has read one more message than it has sent. What it has read comes
// back to the client as credit (internal/transport/flowcontrol.go,
// (*inFlow).onRead), but for the last of it, less than a quarter of the window.
func stalls(up, down, size int) (sent, answered int) {
	answered = ceil(down+quota, size)
	credit, pending := 0, 0
	for range answered + 1 {
		for _, n := range []int{5, size - 5} { // internal/transport/transport.go, ReadMessageHeader and Read
			if pending += n; pending >= up/4 {
				credit, pending = credit+pending, 0
			}
		}
	}
	return ceil(up+quota+credit, size), answered
}

// A dialogue is a client and a handler on one stream, and counts the calls that
// have returned nil.
type dialogue struct {
	sent, received  atomic.Int64 // by the client
	heard, answered atomic.Int64 // by the handler
	server          *grpc.Server
	conn            *grpc.ClientConn
	cancel          func()
	done            chan struct{} // closed when the client has returned
	returned        atomic.Bool   // it has
	handler         chan error    // what the handler returned
	replies         []string
	err             error
}

type counted struct {
	recv func() (*feedv1.ChatMessage, error)
	n    *atomic.Int64
}

func (c counted) Recv() (*feedv1.ChatMessage, error) {
	msg, err := c.recv()
	return msg, count(c.n, err)
}

// all makes a client of a way to send lines.
func all(way func(chatClient, []string) ([]string, error), n, size int) func(chatClient) ([]string, error) {
	return func(stream chatClient) ([]string, error) { return way(stream, lines(n, size)) }
}

// begin lets client talk to handler over link.
func begin(l *lab.Lab, link *lab.Link, client func(chatClient) ([]string, error), handler func(chatServer) error) *dialogue {
	l.Helper()
	return beginWith(l.Context(), l, link, client, handler, nil, nil)
}

func beginWith(ctx context.Context, l *lab.Lab, link *lab.Link, client func(chatClient) ([]string, error), handler func(chatServer) error, srv []grpc.ServerOption, dial []grpc.DialOption) *dialogue {
	l.Helper()
	d := &dialogue{done: make(chan struct{}), handler: make(chan error, 1)}
	d.server = link.Serve(&server{chat: func(stream chatServer) error {
		err := handler(struct {
			countedServer
			counted
		}{countedServer{stream, &d.answered}, counted{stream.Recv, &d.heard}})
		d.handler <- err
		return err
	}}, srv...)
	d.conn = link.Dial(dial...)
	link.Mark()
	ctx, d.cancel = context.WithCancel(ctx)
	stream, err := feedv1.NewFeedServiceClient(d.conn).Chat(ctx)
	if err != nil {
		l.Fatal(err)
	}
	go func() {
		defer close(d.done)
		d.replies, d.err = client(struct {
			countedClient
			counted
		}{countedClient{stream, &d.sent}, counted{stream.Recv, &d.received}})
		d.returned.Store(true)
	}()
	return d
}

// end cancels and waits for the client.
func (d *dialogue) end() {
	d.cancel()
	<-d.done
}

// want checks how many calls have returned, and that neither side has.
func (d *dialogue) want(l *lab.Lab, what string, sent, answered int) {
	l.Helper()
	if s, a := int(d.sent.Load()), int(d.answered.Load()); s != sent || a != answered || d.returned.Load() || len(d.handler) > 0 {
		l.Errorf("%s: %d sent, %d answered, client returned %v, handler %v; want %d, %d, and both blocked", what, s, a, d.returned.Load(), len(d.handler) > 0, sent, answered)
	}
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// increment is what a WINDOW_UPDATE adds.
func increment(f lab.Frame) (n int) {
	fmt.Sscanf(f.Text, "+%d", &n)
	return n
}

// ladder draws frames as the lab does, with what a side sends at one instant in
// one line.
func ladder(frames []lab.Frame) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%10s  client%82s\n", "ms", "server")
	draw := func(f lab.Frame, text string) {
		dashes := strings.Repeat("─", max(0, 85-len([]rune(text))))
		switch {
		case f.Type == "" && f.From == lab.Server:
			text = fmt.Sprintf("%88s", text)
		case f.Type != "" && f.From == lab.Client:
			text += " " + dashes + "─▶"
		case f.Type != "":
			text = "◀─" + dashes + " " + text
		}
		at := fmt.Sprintf("%.3f", f.At.Seconds()*1000)
		if f.At >= 10*time.Minute {
			at = f.At.String()
		}
		fmt.Fprintf(&b, "%10s  %s\n", at, text)
	}
	for i := 0; i < len(frames); {
		f := frames[i]
		var credit, data, whole int
		for ; i < len(frames) && frames[i].At == f.At && frames[i].From == f.From; i++ {
			switch g := frames[i]; g.Type {
			case "WINDOW_UPDATE":
				credit += increment(g)
			case "DATA":
				data += g.Length
				whole += strings.Count(g.Text, "ChatMessage")
			default:
				draw(g, strings.TrimSpace(g.Type+"  "+g.Text))
			}
		}
		if credit > 0 {
			draw(f, fmt.Sprintf("WINDOW_UPDATE  +%d", credit))
		}
		if data > 0 {
			draw(f, fmt.Sprintf("DATA  %d B, completes %d of its lines", data, whole))
		}
	}
	return b.String()
}

// The recording that the README shows. The connections' windows are larger than
// all of it, so that the only credit on the wire is the stream's. That has 64
// KiB, so that a line, a frame and the quarter of a window that is given back
// are the same 16 KiB: else the writer's turn decides where a frame ends.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		d := beginWith(l.Context(), l, link, all(sendThenReceive, 100, 16_376), echo,
			[]grpc.ServerOption{grpc.StaticConnWindowSize(1 << 20), grpc.StaticStreamWindowSize(64 << 10)},
			[]grpc.DialOption{grpc.WithStaticConnWindowSize(1 << 20), grpc.WithStaticStreamWindowSize(64 << 10)})
		defer d.end()
		time.Sleep(time.Hour)
		link.Note(lab.Client, "in Send %d, no reply read", d.sent.Load()+1)
		link.Note(lab.Server, "in Send %d, %d lines unread", d.answered.Load()+1, d.sent.Load()-d.heard.Load())
		lab.Golden(t, "wire.txt", ladder(link.Frames()))
	}, lab.Lasts(2*time.Hour))
}

func TestTheStallIsTwoWindowsTwoQuotasAndAHand(t *testing.T) {
	for _, tt := range []struct{ text, size, sent, answered int }{
		{100, 107, 2303, 1225}, {1000, 1008, 250, 131}, {text, kib, 256, 128}, {10_000, 10_008, 28, 14}, {16_376, 16_384, 17, 8},
	} {
		if s, a := stalls(lab.Window, lab.Window, tt.size); s != tt.sent || a != tt.answered || wire(tt.text) != tt.size {
			t.Errorf("the formula gives %d and %d for %d B, want %d and %d for %d B", s, a, wire(tt.text), tt.sent, tt.answered, tt.size)
		}
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			d := begin(l, link, all(sendThenReceive, 3000, tt.text), echo)
			defer d.end()
			time.Sleep(time.Hour)
			d.want(l, fmt.Sprintf("%d B a message, an hour later", tt.size), tt.sent, tt.answered)
			credit := 0
			for _, f := range link.Frames() {
				if f.From == lab.Server && f.Stream > 0 && f.Type == "WINDOW_UPDATE" {
					credit += increment(f)
				}
			}
			owed := (tt.answered+1)*tt.size - credit // the last line of 1 KiB, or up to 2 B more: a read may end where a window did
			if owed < 0 || owed >= lab.Window/4 || tt.size == kib && owed != kib && owed != kib+1 && owed != kib+2 {
				l.Errorf("%d B a message: %d B read and not credited", tt.size, owed)
			}
			if heard := int(d.heard.Load()); heard != tt.answered+1 || d.received.Load() != 0 {
				l.Errorf("%d B a message: the handler has read %d, want one more than %d; the client %d", tt.size, heard, tt.answered, d.received.Load())
			}
			l.Logf("%6d B a message: the client has sent %4d, %d B; the handler has read %4d and answered %4d; credit %d B", tt.size, tt.sent, tt.sent*tt.size, tt.answered+1, tt.answered, credit)
		}, lab.Lasts(2*time.Hour))
	}
}

// A message larger than its window gets an allowance of its own size, because
// somebody is in Recv for it (internal/transport/flowcontrol.go,
// (*inFlow).maybeAdjust).
func TestOfAMebibyteTheFourthIsStuck(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		d := begin(l, l.NewLink(), all(sendThenReceive, 5, 1<<20), echo)
		defer d.end()
		time.Sleep(time.Minute)
		d.want(l, "1 MiB a message", 3, 1)
		l.Logf("1 MiB a message: the client has sent %d, the handler has answered %d", d.sent.Load(), d.answered.Load())
	})
}

func TestTheStallIsTheSameOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		d := begin(l, l.NewLink(), all(sendThenReceive, 3000, text), echo)
		defer d.end()
		sent, answered := stalls(lab.Window, lab.Window, kib)
		for began := time.Now(); int(d.sent.Load()) < sent && time.Since(began) < 5*time.Second; {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(50 * time.Millisecond) // would be enough for many more
		d.want(l, "over TCP", sent, answered)
		l.Logf("over loopback TCP: 1 KiB a line: %d sent, %d answered", d.sent.Load(), d.answered.Load())
	})
}

// The largest test that says nothing.
func TestOneLineMoreThanTheTestHad(t *testing.T) {
	most, _ := stalls(lab.Window, lab.Window, kib)
	for n := most; n <= most+1; n++ {
		lab.Run(t, func(l *lab.Lab) {
			d := begin(l, l.NewLink(), all(sendThenReceive, n, text), echo)
			defer d.end()
			time.Sleep(24 * time.Hour)
			if n == most && (!d.returned.Load() || d.err != nil || len(d.replies) != n) {
				l.Errorf("%d lines: returned %v, want all replies", n, d.returned.Load())
			}
			if n > most && d.returned.Load() {
				l.Errorf("%d lines: returned", n)
			}
			l.Logf("send all, then receive, %d lines of 1 KiB: returned %v", n, d.returned.Load())
		}, lab.Lasts(48*time.Hour))
	}
}

func TestLargerWindowsOnlyMoveIt(t *testing.T) {
	var labels, formula, measured []string
	for _, tt := range []struct{ up, down, want int }{
		{64 * kib, 64 * kib, 256}, {128 * kib, 128 * kib, 384}, {256 * kib, 256 * kib, 640}, {512 * kib, 512 * kib, 1088},
		{1024 * kib, 1024 * kib, 2112}, {1024 * kib, lab.Window, 1088}, {lab.Window, 1024 * kib, 1216},
	} {
		up, down := tt.up, tt.down
		lab.Run(t, func(l *lab.Lab) {
			d := beginWith(l.Context(), l, l.NewLink(), all(sendThenReceive, 4000, text), echo,
				[]grpc.ServerOption{grpc.StaticStreamWindowSize(int32(up))}, []grpc.DialOption{grpc.WithStaticStreamWindowSize(int32(down))})
			defer d.end()
			time.Sleep(time.Minute)
			sent, answered := stalls(up, down, kib)
			if sent != tt.want {
				l.Errorf("the formula gives %d, want %d", sent, tt.want)
			}
			d.want(l, fmt.Sprintf("windows %d up, %d down", up, down), sent, answered)
			l.Logf("windows of %4d KiB up and %4d KiB down: stuck after %d lines of 1 KiB", up>>10, down>>10, d.sent.Load())
			if up == down {
				labels = append(labels, fmt.Sprint(up>>10))
				formula = append(formula, fmt.Sprint(sent))
				measured = append(measured, fmt.Sprint(d.sent.Load()))
			}
		})
	}
	lab.Golden(t, "stall.mmd", fmt.Sprintf("xychart-beta\n    x-axis \"windows of both sides (KiB)\" [%s]\n"+
		"    y-axis \"lines of 1 KiB until both block\" 0 --> 2200\n    bar [%s]\n    line [%s]\n",
		strings.Join(labels, ", "), strings.Join(measured, ", "), strings.Join(formula, ", ")))
}

// The estimator (internal/transport/bdp_estimator.go) enlarges a window, to
// 16 MiB at most, when much of it arrived within a round trip. When both sides
// wait nothing arrives.
func TestTheEstimatorOnlyMovesItToo(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		d := begin(l, l.NewLink(lab.WithBDP()), all(sendThenReceive, 1000, text), echo)
		defer d.end()
		time.Sleep(time.Hour)
		if sent := d.sent.Load(); sent < 257 || sent > 999 || d.returned.Load() {
			l.Errorf("with the estimator: %d of 1000 sent, returned %v, want more than 256, not all, and both blocked", sent, d.returned.Load())
		}
		l.Logf("with the estimator: an hour later %d of 1000 lines of 1 KiB are sent, %d answered", d.sent.Load(), d.answered.Load())
	}, lab.Lasts(2*time.Hour))
}

type peer interface {
	Send(*feedv1.ChatMessage) error
	Recv() (*feedv1.ChatMessage, error)
	Context() context.Context
}

// push sends n lines of text in a goroutine of its own.
func push(stream peer, n int, text string) {
	go func() {
		for range n {
			if stream.Send(&feedv1.ChatMessage{Text: text}) != nil {
				return
			}
		}
	}()
}

// No echo: one goroutine for each direction, at both ends. Nobody reads in one
// of them, and the other does not notice.
func TestTheDirectionsAreIndependent(t *testing.T) {
	meanwhile := func(stream peer, reads bool) (err error) {
		push(stream, 1000, strings.Repeat("x", 1000)) // of 1,008 B
		for reads && err == nil {
			_, err = stream.Recv()
		}
		<-stream.Context().Done()
		return err
	}
	for _, clientReads := range []bool{true, false} {
		lab.Run(t, func(l *lab.Lab) {
			d := begin(l, l.NewLink(), func(stream chatClient) ([]string, error) { return nil, meanwhile(stream, clientReads) },
				func(stream chatServer) error { return meanwhile(stream, !clientReads) })
			defer d.end()
			time.Sleep(time.Minute)
			up, heard, down, received := d.sent.Load(), d.heard.Load(), d.answered.Load(), d.received.Load()
			want := [4]int64{1000, 1000, 131, 0}
			if clientReads {
				want = [4]int64{131, 0, 1000, 1000}
			}
			if got := [4]int64{up, heard, down, received}; got != want {
				l.Errorf("up sent and read, down sent and read: %d, want %d", got, want)
			}
			l.Logf("of 1000 lines each way: up %4d sent and %4d read, down %4d sent and %4d read", up, heard, down, received)
		})
	}
}

// The same client against echo: its Send waits for its own Recv.
func TestTheHandlerCouplesThem(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		steps := make(chan bool)
		d := begin(l, l.NewLink(), func(stream chatClient) ([]string, error) {
			push(stream, 1000, strings.Repeat("x", text))
			for range steps {
				stream.Recv()
			}
			return nil, nil
		}, echo)
		var sent []int64
		for range 33 {
			time.Sleep(time.Second)
			sent = append(sent, d.sent.Load())
			steps <- true
		}
		for i, n := range sent {
			if want := int64(256 + i/16*16); n != want {
				l.Errorf("after %d Recvs of the client %d of its Sends have returned, want %d", i, n, want)
			}
		}
		l.Logf("Sends of the client that have returned, after 0 of its own Recvs: %d, 15: %d, 16: %d, 32: %d", sent[0], sent[15], sent[16], sent[32])
		close(steps)
		d.end()
	})
}

func TestReceivingInAGoroutineEndsTheDeadlock(t *testing.T) {
	for _, tt := range []struct{ n, size int }{{5000, 100}, {2000, text}, {5, 1 << 20}} {
		lab.Run(t, func(l *lab.Lab) {
			d := begin(l, l.NewLink(), all(sendWhileReceiving, tt.n, tt.size), echo)
			defer d.end()
			most, began := int64(0), time.Now()
			for !d.returned.Load() {
				time.Sleep(100 * time.Microsecond)
				most = max(most, d.sent.Load()-d.received.Load())
			}
			sent, _ := stalls(lab.Window, lab.Window, wire(tt.size))
			if d.err != nil || len(d.replies) != tt.n || tt.size <= text && most > int64(sent) {
				l.Errorf("%d lines of %d B: %d replies, error %v, at most %d unanswered, want all and at most %d", tt.n, tt.size, len(d.replies), d.err, most, sent)
			}
			l.Logf("%5d lines of %7d B: all answered after %v, never more than %d unanswered", tt.n, tt.size, time.Since(began).Round(time.Millisecond), most)
		})
	}
}

// buffered reads from a channel that a goroutine fills.
type buffered struct {
	chatClient
	replies chan *feedv1.ChatMessage
}

func (b buffered) Recv() (*feedv1.ChatMessage, error) {
	if msg, ok := <-b.replies; ok {
		return msg, nil
	}
	return nil, io.EOF
}

func throughChannel(slots int) func(chatClient, []string) ([]string, error) {
	return func(stream chatClient, lines []string) ([]string, error) {
		replies := make(chan *feedv1.ChatMessage, slots)
		go func() {
			defer close(replies)
			for {
				msg, err := stream.Recv()
				if err != nil {
					return
				}
				select {
				case replies <- msg:
				case <-stream.Context().Done():
				}
			}
		}()
		return sendThenReceive(buffered{stream, replies}, lines)
	}
}

// With slots in between the client has received so many, and one in hand; whole
// quarters of a window come back as credit, here 16 lines.
func TestAChannelOnlyMovesItToo(t *testing.T) {
	for _, slots := range []int{0, 100, 1000} {
		lab.Run(t, func(l *lab.Lab) {
			d := begin(l, l.NewLink(), all(throughChannel(slots), 3000, text), echo)
			defer d.end()
			time.Sleep(time.Hour)
			more := (slots + 1) / 16 * 16
			d.want(l, fmt.Sprintf("%d slots", slots), 256+more, 128+more)
			l.Logf("a channel of %4d slots for the replies: stuck after %d lines, with %d received", slots, d.sent.Load(), d.received.Load())
		}, lab.Lasts(2*time.Hour))
	}
}

func TestAHandlerThatReadsOnHoldsWhatIsNotRead(t *testing.T) {
	for _, n := range []int{0, 2000} {
		lab.Run(t, func(l *lab.Lab) {
			read := make(chan bool)
			d := begin(l, l.NewLink(), func(stream chatClient) ([]string, error) {
				send(stream, lines(n, text))
				<-read
				return receive(stream)
			}, echoFromQueue)
			defer d.end()
			time.Sleep(time.Hour)
			sent, heard, answered := d.sent.Load(), d.heard.Load(), d.answered.Load()
			if want := [3]int64{int64(n), int64(n), int64(min(n, 128))}; [3]int64{sent, heard, answered} != want {
				l.Errorf("a handler with a queue: %d sent, %d read, %d answered, want %d", sent, heard, answered, want)
			}
			l.Logf("a handler with a queue has read %d lines of a client that reads nothing, and holds %d", heard, heard-answered)
			close(read)
			<-d.done
			if d.err != nil || len(d.replies) != n {
				l.Errorf("then the client got %d replies of %d, error %v", len(d.replies), n, d.err)
			}
		}, lab.Lasts(2*time.Hour))
	}
}

// echoWithin is echo, but it gives up after limit. Its return ends the Send.
func echoWithin(limit time.Duration) func(chatServer) error {
	return func(stream chatServer) error {
		done := make(chan error, 1)
		go func() { done <- echo(stream) }()
		select {
		case err := <-done:
			return err
		case <-time.After(limit):
			return status.Error(codes.ResourceExhausted, "nobody reads the replies")
		}
	}
}

// The status stands behind the replies in the stream's queue
// (internal/transport/controlbuf.go, (*loopyWriter).headerHandler), and there is
// no window for those.
func TestAHandlerThatGivesUpFreesOnlyItself(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		read := make(chan bool)
		d := begin(l, l.NewLink(), func(stream chatClient) ([]string, error) {
			push(stream, 1000, strings.Repeat("x", text))
			<-read
			return receive(stream)
		}, echoWithin(time.Minute))
		time.Sleep(time.Hour)
		if len(d.handler) != 1 || d.sent.Load() != 256 || !strings.Contains(l.Stuck(), "Send") {
			l.Errorf("the handler returned %v, the client has sent %d and waits in:\n%s", len(d.handler) == 1, d.sent.Load(), l.Stuck())
		}
		l.Logf("59 minutes after the handler's return the client is %s", l.Stuck())
		close(read)
		<-d.done
		if status.Code(d.err) != codes.ResourceExhausted || len(d.replies) != 128 {
			l.Errorf("then the client got %d replies and %v, want 128 and ResourceExhausted", len(d.replies), d.err)
		}
		l.Logf("when it reads it gets %d replies and then code %v", len(d.replies), status.Code(d.err))
		d.cancel()
	}, lab.Lasts(2*time.Hour))
}

func TestAnyEndOfTheStreamFreesBoth(t *testing.T) {
	const after = time.Minute
	for _, end := range []struct {
		what  string
		limit time.Duration
		how   func(*dialogue, *lab.Link)
		code  codes.Code
	}{
		{"a cancel", time.Hour, func(d *dialogue, _ *lab.Link) { d.cancel() }, codes.Canceled},
		{"a deadline", after, nil, codes.DeadlineExceeded},
		{"conn.Close", time.Hour, func(d *dialogue, _ *lab.Link) { d.conn.Close() }, codes.Canceled},
		{"srv.Stop", time.Hour, func(d *dialogue, _ *lab.Link) { d.server.Stop() }, codes.Unavailable},
		{"a reset", time.Hour, func(_ *dialogue, link *lab.Link) { link.Cut() }, codes.Unavailable},
	} {
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			ctx, cancel := context.WithTimeout(l.Context(), end.limit)
			defer cancel()
			d := beginWith(ctx, l, link, all(sendThenReceive, 1000, text), echo, nil, nil)
			defer d.cancel()
			due, _ := ctx.Deadline()
			if end.how != nil {
				time.Sleep(after)
				due = time.Now()
				end.how(d, link)
			}
			<-d.done
			client := time.Since(due)
			<-d.handler
			handler := time.Since(due)
			if client < 0 || client > lab.Latency || handler > lab.Latency || status.Code(d.err) != end.code || len(d.replies) != 63 {
				l.Errorf("%s: the client returned after %v with %d replies and %v, the handler after %v", end.what, client, len(d.replies), d.err, handler)
			}
			l.Logf("%s: the client returns after %v with %d replies and code %v, the handler after %v", end.what, client, len(d.replies), status.Code(d.err), handler)
		})
	}
}
