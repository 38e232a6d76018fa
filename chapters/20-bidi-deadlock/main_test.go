package main

import (
	"context"
	"fmt"
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
	talk
	heard, received atomic.Int64 // by the handler, by the client
	server          *grpc.Server
	conn            *grpc.ClientConn
	cancel          func()
	done            chan struct{} // the client has returned
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
	if err == nil {
		c.n.Add(1)
	}
	return msg, err
}

// all makes a client of a way to send lines.
func all(way func(chatClient, []string) ([]string, error), n, size int) func(chatClient) ([]string, error) {
	return func(stream chatClient) ([]string, error) { return way(stream, lines(n, size)) }
}

// windows are the options for streams of that size, the server's and the client's.
func windows(up, down int) ([]grpc.ServerOption, []grpc.DialOption) {
	return []grpc.ServerOption{grpc.StaticStreamWindowSize(int32(up))},
		[]grpc.DialOption{grpc.WithStaticStreamWindowSize(int32(down))}
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
	if s, a := int(d.sent.Load()), int(d.answered.Load()); s != sent || a != answered || d.returned() || len(d.handler) > 0 {
		l.Errorf("%s: %d sent, %d answered, client returned %v, handler %v; want %d, %d, and both blocked", what, s, a, d.returned(), len(d.handler) > 0, sent, answered)
	}
}

func (d *dialogue) returned() bool {
	select {
	case <-d.done:
		return true
	default:
		return false
	}
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

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
	for len(frames) > 0 {
		f := frames[0]
		n := 0
		for n < len(frames) && frames[n].At == f.At && frames[n].From == f.From {
			n++
		}
		same := frames[:n]
		frames = frames[n:]
		var credit, data, whole int
		for _, f := range same {
			switch f.Type {
			case "WINDOW_UPDATE":
				var n int
				fmt.Sscanf(f.Text, "+%d", &n)
				credit += n
			case "DATA":
				data += f.Length
				whole += strings.Count(f.Text, "ChatMessage")
			default:
				draw(f, strings.TrimSpace(f.Type+"  "+f.Text))
			}
		}
		if credit > 0 {
			draw(lab.Frame{At: f.At, From: f.From, Type: "WINDOW_UPDATE"}, fmt.Sprintf("WINDOW_UPDATE  +%d", credit))
		}
		if data > 0 {
			draw(lab.Frame{At: f.At, From: f.From, Type: "DATA"}, fmt.Sprintf("DATA  %d B, completes %d of its lines", data, whole))
		}
	}
	return b.String()
}

// The recording that the README shows. The connections' windows are larger than
// all of it, so that the only credit on the wire is the stream's.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		d := beginWith(l.Context(), l, link, all(sendThenReceive, 100, 16_376), echo,
			[]grpc.ServerOption{grpc.StaticConnWindowSize(1 << 20)}, []grpc.DialOption{grpc.WithStaticConnWindowSize(1 << 20)})
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
			d := begin(l, l.NewLink(), all(sendThenReceive, 3000, tt.text), echo)
			defer d.end()
			time.Sleep(time.Hour)
			d.want(l, fmt.Sprintf("%d B a message, an hour later", tt.size), tt.sent, tt.answered)
			if heard := int(d.heard.Load()); heard != tt.answered+1 || d.received.Load() != 0 {
				l.Errorf("%d B a message: the handler has read %d, want one more than %d; the client %d", tt.size, heard, tt.answered, d.received.Load())
			}
			l.Logf("%6d B a message: the client has sent %4d, %d B; the handler has read %4d and answered %4d", tt.size, d.sent.Load(), d.sent.Load()*int64(tt.size), d.heard.Load(), d.answered.Load())
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
			if n == most && (!d.returned() || d.err != nil || len(d.replies) != n) {
				l.Errorf("%d lines: returned %v, want all replies", n, d.returned())
			}
			if n > most && d.returned() {
				l.Errorf("%d lines: returned", n)
			}
			l.Logf("send all, then receive, %d lines of 1 KiB: returned %v", n, d.returned())
		}, lab.Lasts(48*time.Hour))
	}
}

func TestLargerWindowsOnlyMoveIt(t *testing.T) {
	var labels, formula, measured []string
	for _, window := range [][2]int{{64 << 10, 64 << 10}, {128 << 10, 128 << 10}, {256 << 10, 256 << 10}, {512 << 10, 512 << 10}, {1 << 20, 1 << 20}, {1 << 20, lab.Window}, {lab.Window, 1 << 20}} {
		up, down := window[0], window[1]
		lab.Run(t, func(l *lab.Lab) {
			srv, dial := windows(up, down)
			d := beginWith(l.Context(), l, l.NewLink(), all(sendThenReceive, 4000, text), echo, srv, dial)
			defer d.end()
			time.Sleep(time.Minute)
			sent, answered := stalls(up, down, kib)
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
		if sent := d.sent.Load(); sent < 257 || sent > 999 || d.returned() {
			l.Errorf("with the estimator: %d of 1000 sent, returned %v, want more than 256, not all, and both blocked", sent, d.returned())
		}
		l.Logf("with the estimator: an hour later %d of 1000 lines of 1 KiB are sent, %d answered", d.sent.Load(), d.answered.Load())
	}, lab.Lasts(2*time.Hour))
}

// pushing sends n lines and reads nothing, in a goroutine of its own.
func pushing(n, size int, send func(*feedv1.ChatMessage) error) {
	go func() {
		for _, line := range lines(n, size) {
			if send(&feedv1.ChatMessage{Text: line}) != nil {
				return
			}
		}
	}()
}

func taking(recv func() (*feedv1.ChatMessage, error)) error {
	for {
		if _, err := recv(); err != nil {
			return err
		}
	}
}

// No echo: one goroutine for each direction, at both ends. Nobody reads in one
// of them, and the other does not notice.
func TestTheDirectionsAreIndependent(t *testing.T) {
	const size = 1000 // 1,008 B
	idle := func(stream chatServer) error { <-stream.Context().Done(); return nil }
	lab.Run(t, func(l *lab.Lab) {
		d := begin(l, l.NewLink(), func(stream chatClient) ([]string, error) {
			pushing(1000, size, stream.Send)
			return nil, taking(stream.Recv)
		}, func(stream chatServer) error {
			pushing(1000, size, stream.Send)
			return idle(stream)
		})
		defer d.end()
		time.Sleep(time.Minute)
		if d.sent.Load() != 131 || d.received.Load() != 1000 {
			l.Errorf("the handler reads nothing: %d sent, want 131, and %d received of 1000", d.sent.Load(), d.received.Load())
		}
		l.Logf("the handler reads nothing: the client's Send blocks after %d, and it has received %d of 1000", d.sent.Load(), d.received.Load())
	})
	lab.Run(t, func(l *lab.Lab) {
		d := begin(l, l.NewLink(), func(stream chatClient) ([]string, error) {
			pushing(1000, size, stream.Send)
			<-stream.Context().Done()
			return nil, nil
		}, func(stream chatServer) error {
			pushing(1000, size, stream.Send)
			return taking(stream.Recv)
		})
		defer d.end()
		time.Sleep(time.Minute)
		if d.answered.Load() != 131 || d.heard.Load() != 1000 {
			l.Errorf("the client reads nothing: %d sent, want 131, and %d read of 1000", d.answered.Load(), d.heard.Load())
		}
		l.Logf("the client reads nothing: the handler's Send blocks after %d, and it has read %d of 1000", d.answered.Load(), d.heard.Load())
	})
}

// The same client against echo: its Send waits for its own Recv.
func TestTheHandlerCouplesThem(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		steps := make(chan bool)
		d := begin(l, l.NewLink(), func(stream chatClient) ([]string, error) {
			pushing(1000, text, stream.Send)
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
			n, size := tt.n, tt.size
			var d *dialogue
			most, ready := int64(0), make(chan struct{})
			began := time.Now()
			d = begin(l, l.NewLink(), func(stream chatClient) ([]string, error) {
				<-ready // d is set
				return sendWhileReceiving(sampled{stream, func() { most = max(most, d.sent.Load()-d.received.Load()) }}, lines(n, size))
			}, echo)
			close(ready)
			<-d.done
			sent, _ := stalls(lab.Window, lab.Window, wire(size))
			if d.err != nil || len(d.replies) != n || size <= text && most > int64(sent) {
				l.Errorf("%d lines of %d B: %d replies, error %v, at most %d unanswered, want all and at most %d", n, size, len(d.replies), d.err, most, sent)
			}
			l.Logf("%5d lines of %7d B: all answered after %v, never more than %d unanswered", n, size, time.Since(began).Round(time.Millisecond), most)
			d.end()
		})
	}
}

// sampled looks before each Send.
type sampled struct {
	chatClient
	look func()
}

func (s sampled) Send(msg *feedv1.ChatMessage) error {
	s.look()
	return s.chatClient.Send(msg)
}

// throughChannel receives in a goroutine, which hands the replies over to a loop
// that begins when all is sent.
func throughChannel(slots int) func(chatClient, []string) ([]string, error) {
	return func(stream chatClient, lines []string) (replies []string, err error) {
		received := make(chan string, slots)
		go func() {
			defer close(received)
			for {
				msg, recvErr := stream.Recv()
				if recvErr != nil {
					return
				}
				select {
				case received <- msg.GetText():
				case <-stream.Context().Done():
					return
				}
			}
		}()
		for _, line := range lines {
			if stream.Send(&feedv1.ChatMessage{Text: line}) != nil {
				break
			}
		}
		stream.CloseSend()
		for reply := range received {
			replies = append(replies, reply)
		}
		return replies, nil
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
	lab.Run(t, func(l *lab.Lab) {
		const n = 2000
		read := make(chan bool)
		d := begin(l, l.NewLink(), func(stream chatClient) ([]string, error) {
			for _, line := range lines(n, text) {
				stream.Send(&feedv1.ChatMessage{Text: line})
			}
			stream.CloseSend()
			<-read
			return receive(stream)
		}, echoFromQueue)
		time.Sleep(time.Hour)
		if heard, answered := d.heard.Load(), d.answered.Load(); d.sent.Load() != n || heard != n || answered != 128 {
			l.Errorf("a handler with a queue: %d sent, %d read, %d answered, want %d, %d, 128", d.sent.Load(), heard, answered, n, n)
		}
		l.Logf("a handler with a queue has read %d lines of a client that reads nothing, and holds %d", d.heard.Load(), d.heard.Load()-d.answered.Load())
		close(read)
		<-d.done
		if d.err != nil || len(d.replies) != n {
			l.Errorf("then the client got %d replies of %d, error %v", len(d.replies), n, d.err)
		}
		d.end()
	}, lab.Lasts(2*time.Hour))
}

// echoWithin is echo, but it gives up when a client has let it send no reply for
// so long. Its return ends the Send.
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
			pushing(1000, text, stream.Send)
			<-read
			return receive(stream)
		}, echoWithin(time.Minute))
		time.Sleep(time.Hour)
		if len(d.handler) != 1 || d.sent.Load() != 256 || strings.Contains(l.Stuck(), "Send") == false {
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
		what string
		how  func(*dialogue, *lab.Link)
		code codes.Code
	}{
		{"a cancel", func(d *dialogue, _ *lab.Link) { d.cancel() }, codes.Canceled},
		{"a deadline", nil, codes.DeadlineExceeded},
		{"conn.Close", func(d *dialogue, _ *lab.Link) { d.conn.Close() }, codes.Canceled},
		{"srv.Stop", func(d *dialogue, _ *lab.Link) { d.server.Stop() }, codes.Unavailable},
		{"a reset", func(_ *dialogue, link *lab.Link) { link.Cut() }, codes.Unavailable},
	} {
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			limit := time.Hour
			if end.how == nil {
				limit = after
			}
			ctx, cancel := context.WithTimeout(l.Context(), limit)
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
