package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// quota is how many bytes a stream may schedule before it has written some of
// them (grpc's internal/transport/defaults.go, defaultWriteQuota).
const quota = 64 << 10

// sends is the formula: how many messages Send takes for a peer that does not
// read. wire is what one takes of the stream, its encoding and gRPC's 5 bytes
// before it. A message passes while a byte of the quota is left, however large
// it is (internal/transport/flowcontrol.go, (*writeQuota).get).
func sends(window, wire int) int { return (window + quota + wire - 1) / wire }

// kib is what an event of the chapter, with its body of 1 KiB, takes of a
// stream.
const kib = 1032

func event(body int) *feedv1.Event { return &feedv1.Event{Body: strings.Repeat("x", body)} }

// wire is how many bytes of a stream an event takes.
func wire(ev *feedv1.Event) int { return proto.Size(ev) + 5 }

// every is a source of n times the same event, one each interval, and then
// silent.
func every(interval time.Duration, n int, ev *feedv1.Event) source {
	return func(ctx context.Context) (*feedv1.Event, error) {
		if n--; n < 0 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		if interval > 0 {
			time.Sleep(interval)
		}
		return ev, ctx.Err()
	}
}

// A direction is the way that the messages of a test take.
type direction string

const (
	down direction = "server to client"
	up   direction = "client to server"
)

var both = []direction{down, up}

// A flow counts what passes the three places on a message's way: what was
// taken from the source, what Send has taken, what Recv has returned.
type flow struct {
	taken, sent, received atomic.Int64
	result                chan error // of the forwarder
}

// readsNothing is a receiver.
func readsNothing(func() error) {}

// readsAll is a receiver that takes a while for each event.
func readsAll(takes time.Duration) func(recv func() error) {
	return func(recv func() error) {
		for recv() == nil {
			if takes > 0 {
				time.Sleep(takes)
			}
		}
	}
}

// start lets way forward next to a receiver that does what read does and then
// no more, until ctx ends.
func start(ctx context.Context, l *lab.Lab, link *lab.Link, dir direction, way forwarder, next source, read func(recv func() error)) *flow {
	l.Helper()
	return startWith(ctx, l, link, dir, way, next, read, nil, nil)
}

func startWith(ctx context.Context, l *lab.Lab, link *lab.Link, dir direction, way forwarder, next source, read func(recv func() error), srv []grpc.ServerOption, dial []grpc.DialOption) *flow {
	l.Helper()
	f := &flow{result: make(chan error, 1)}
	counting := func(ctx context.Context, next source, send func(*feedv1.Event) error) error {
		err := way(ctx, counted(next, &f.taken), func(ev *feedv1.Event) error {
			err := send(ev)
			if err == nil {
				f.sent.Add(1)
			}
			return err
		})
		f.result <- err
		return err
	}
	recv := func(stream interface{ RecvMsg(any) error }) func() error {
		return func() error {
			err := stream.RecvMsg(new(feedv1.Event))
			if err == nil {
				f.received.Add(1)
			}
			return err
		}
	}
	link.Serve(&server{forward: counting, topic: next, upload: func(stream uploadServer) error {
		read(recv(stream))
		return readNothing(stream)
	}}, srv...)
	client := feedv1.NewFeedServiceClient(link.Dial(dial...))
	if dir == up {
		go upload(ctx, client, counting, next)
		return f
	}
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		l.Fatal(err)
	}
	go read(recv(stream))
	return f
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows. The client's connection window is
// larger than all of it, so that the only credit on the wire is the stream's.
// That has 64 KiB, so that an event is two frames, and a frame the quarter of a
// window that is given back: else the writer's turn decides where a frame ends.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		n := 0
		noted := func(ctx context.Context, next source, send func(*feedv1.Event) error) error {
			return forward(ctx, next, func(ev *feedv1.Event) error {
				n++
				if n > 4 {
					link.Note(lab.Server, "Send %d", n)
				}
				began := time.Now()
				err := send(ev)
				if waited := time.Since(began); waited > 0 && err == nil {
					link.Note(lab.Server, "Send %d returns, after %v", n, waited.Round(time.Millisecond))
				}
				return err
			})
		}
		link.Serve(&server{forward: noted, topic: every(time.Millisecond, 5, event(32_759))})
		client := feedv1.NewFeedServiceClient(link.Dial(grpc.WithStaticConnWindowSize(1<<20), grpc.WithStaticStreamWindowSize(64<<10)))
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
		if err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Second)
		link.Note(lab.Client, "Recv, for the first time")
		if _, err := stream.Recv(); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Second)
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

// stalled returns how many Sends returned nil when the receiver read nothing.
func stalled(l *lab.Lab, link *lab.Link, dir direction, ev *feedv1.Event) int {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	defer cancel()
	f := start(ctx, l, link, dir, forward, every(0, 20_000, ev), readsNothing)
	time.Sleep(100 * time.Millisecond)
	return int(f.sent.Load())
}

func TestSendTakesAWindowAndAQuota(t *testing.T) {
	var sizes, formula, measured []int
	for body := 256; body <= 64<<10; body *= 2 {
		sizes = append(sizes, body)
	}
	plotted := len(sizes)
	// At 131,070 B a message a second one finds a byte of quota left.
	for _, body := range append(sizes, 1015, 1016, 131_061, 131_062, 1<<20, 50) {
		ev := event(body)
		want := sends(lab.Window, wire(ev))
		for _, dir := range both {
			lab.Run(t, func(l *lab.Lab) {
				got := stalled(l, l.NewLink(), dir, ev)
				if got != want {
					l.Errorf("%s: Send took %d messages of %d B, want %d", dir, got, wire(ev), want)
				}
				l.Logf("%s, %7d B a message: Send takes %4d, then it blocks", dir, wire(ev), got)
				if dir == down {
					formula, measured = append(formula, want), append(measured, got)
				}
			})
		}
	}
	list := fmt.Sprint(formula[plotted:])
	if want := "[129 128 2 1 1 2300]"; list != want || formula[2] != 128 {
		t.Errorf("the formula gives %s and %d for 1 KiB, want %s and 128", list, formula[2], want)
	}
	kib := func(b int) string { return strconv.FormatFloat(float64(b)/1024, 'g', -1, 64) }
	var labels []string
	for _, b := range sizes {
		labels = append(labels, kib(b))
	}
	lab.Golden(t, "sends.mmd", fmt.Sprintf("xychart-beta\n    x-axis \"body of a message (KiB)\" [%s]\n"+
		"    y-axis \"Sends before one blocks\" 0 --> 550\n    bar [%s]\n    line [%s]\n",
		strings.Join(labels, ", "), commas(measured[:plotted]), commas(formula[:plotted])))
}

func commas(all []int) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(all), "[]"), " ", ", ")
}

func TestSendTakesAsMuchOverTCPToo(t *testing.T) {
	for _, dir := range both {
		lab.OverTCP(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			f := start(ctx, l, l.NewLink(), dir, forward, every(0, 10_000, event(1024)), readsNothing)
			want := int64(sends(lab.Window, kib))
			for began := time.Now(); f.sent.Load() < want && time.Since(began) < 5*time.Second; {
				time.Sleep(time.Millisecond)
			}
			time.Sleep(50 * time.Millisecond) // would be enough for many more
			if got := f.sent.Load(); got != want {
				l.Errorf("%s: Send took %d messages of %d B, want %d", dir, got, kib, want)
			}
			l.Logf("%s over loopback TCP: Send takes %d of %d B", dir, f.sent.Load(), kib)
		})
	}
}

// The sender's own window is for what it receives.
func TestTheWindowIsTheReceivers(t *testing.T) {
	const large = 256 << 10
	for _, tt := range []struct {
		dir            direction
		client, server int
		want           int
	}{
		{down, large, lab.Window, sends(large, kib)},
		{down, lab.Window, large, sends(lab.Window, kib)},
		{up, lab.Window, large, sends(large, kib)},
		{up, large, lab.Window, sends(lab.Window, kib)},
	} {
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			link := l.NewLink()
			f := startWith(ctx, l, link, tt.dir, forward, every(0, 1000, event(1024)), readsNothing,
				[]grpc.ServerOption{grpc.StaticStreamWindowSize(int32(tt.server))},
				[]grpc.DialOption{grpc.WithStaticStreamWindowSize(int32(tt.client))})
			time.Sleep(time.Second)
			if got := int(f.sent.Load()); got != tt.want {
				l.Errorf("%s, client %d B, server %d B: Send took %d, want %d", tt.dir, tt.client, tt.server, got, tt.want)
			}
			l.Logf("%s, the client's window %d B, the server's %d B: Send takes %d", tt.dir, tt.client, tt.server, f.sent.Load())
		})
	}
}

// Without a static window an estimator doubles the window while it sees a
// full one arrive (internal/transport/bdp_estimator.go, calculate). How much
// it sees depends on how soon the sender runs: a range, no number. An unread
// stream gets it to double once: for a second time two thirds of twice the
// first sample must arrive within a round trip, and only half has room.
func TestTheEstimatorMovesTheNumber(t *testing.T) {
	for _, dir := range both {
		lab.Run(t, func(l *lab.Lab) {
			got := stalled(l, l.NewLink(lab.WithBDP()), dir, event(1024))
			if least, most := sends(lab.Window, kib), sends(2*lab.Window, kib); got <= least || got > most {
				l.Errorf("%s: Send took %d, want more than %d and at most %d", dir, got, least, most)
			}
			l.Logf("%s, windows left to the estimator: Send takes %d of %d B", dir, got, kib)
		})
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			f := start(ctx, l, l.NewLink(lab.WithBDP()), dir, forward, every(20*time.Millisecond, 300, event(1024)), readsNothing)
			time.Sleep(10 * time.Second)
			if got, want := f.sent.Load(), int64(sends(lab.Window, kib)); got != want {
				l.Errorf("%s, 50 a second: Send took %d, want %d", dir, got, want)
			}
			l.Logf("%s, windows left to the estimator, 50 a second: Send takes %d", dir, f.sent.Load())
		})
	}
}

// floods is a feed whose Watch sends as fast as it can, and counts what Send
// took of the topic "stalled".
type floods struct {
	feedv1.UnimplementedFeedServiceServer
	sent *atomic.Int64
}

func (s floods) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	for ev := event(16 << 10); ; {
		if err := stream.Send(ev); err != nil {
			return err
		}
		if req.GetTopic() == "stalled" {
			s.sent.Add(1)
		}
	}
}

// The estimator belongs to the connection, and so do the windows that it
// raises, up to 16 MiB (bdpLimit): also that of a stream which nobody reads.
func TestABusyNeighbourMovesItFurther(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var sent atomic.Int64
		client, _ := l.Connect(floods{sent: &sent}, lab.WithBDP())
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		if _, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "stalled"}); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Second)
		alone := sent.Load()
		busy, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "busy"})
		if err != nil {
			l.Fatal(err)
		}
		for range 200 {
			busy.Recv()
		}
		time.Sleep(time.Second)
		wire := wire(event(16 << 10))
		if got, most := sent.Load(), int64(sends(16<<20, wire)); got < 5*alone || got > most {
			l.Errorf("alone the stream took %d Sends, beside a busy one %d, want at least five times as many and at most %d", alone, got, most)
		}
		l.Logf("nobody reads it: alone the stream takes %d Sends of 16 KiB, beside a busy one %d, %d B", alone, sent.Load(), sent.Load()*int64(wire))
	})
}

// Credit goes back when a quarter of the window has been read
// (internal/transport/flowcontrol.go, (*inFlow).onRead): of 65,535 B 16,383 B.
func TestSixteenReadsFreeSixteenSends(t *testing.T) {
	for _, dir := range both {
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			var reads []int64
			var f *flow
			steps := make(chan bool)
			f = start(ctx, l, l.NewLink(), dir, forward, every(0, 1000, event(1024)), func(recv func() error) {
				for range steps {
					recv()
				}
			})
			defer close(steps)
			for range 33 {
				time.Sleep(time.Second)
				reads = append(reads, f.sent.Load())
				steps <- true
			}
			for i, n := range reads {
				if want := int64(128 + i/16*16); n != want {
					l.Errorf("%s: after %d reads Send had taken %d, want %d", dir, i, n, want)
				}
			}
			l.Logf("%s: Send had taken %d after 0 reads, %d after 15, %d after 16, %d after 31, %d after 32", dir, reads[0], reads[15], reads[16], reads[31], reads[32])
		})
	}
}

func TestTheReaderSetsThePaceOfTheSource(t *testing.T) {
	for _, dir := range both {
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			f := start(ctx, l, l.NewLink(), dir, forward, every(0, 1_000_000, event(1024)), readsAll(10*time.Millisecond))
			for s := range 20 {
				time.Sleep(time.Second)
				// 128 that Send takes, one that it waits with, and what was read since the last credit.
				if ahead := f.taken.Load() - f.received.Load(); ahead < 129-16 || ahead > 129 {
					l.Errorf("%s: after %d s the source was %d events ahead of the reader", dir, s+1, ahead)
				}
			}
			taken, received := f.taken.Load(), f.received.Load()
			if received < 1990 || received > 2000 {
				l.Errorf("%s: the reader got %d events in 20 s, want 2000", dir, received)
			}
			l.Logf("%s: a source that could give any number gave %d in 20 s, a reader of 100 a second has read %d", dir, taken, received)
		})
	}
}

func TestABlockedSendWaitsAnHourAndLosesNothing(t *testing.T) {
	for _, dir := range both {
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			f := start(ctx, l, l.NewLink(), dir, forward, every(0, 1000, event(1024)), func(recv func() error) {
				time.Sleep(time.Hour)
				readsAll(0)(recv)
			})
			time.Sleep(59 * time.Minute)
			if sent := f.sent.Load(); sent != 128 || len(f.result) != 0 {
				l.Errorf("%s: after 59 minutes Send had taken %d and the forwarder had returned: %v", dir, sent, len(f.result) == 1)
			}
			time.Sleep(2 * time.Minute)
			if n := f.received.Load(); n != 1000 {
				l.Errorf("%s: %d events arrived, want 1000", dir, n)
			}
			l.Logf("%s: Send waited for an hour without an error; then %d of 1000 arrived", dir, f.received.Load())
		}, lab.Lasts(2*time.Hour))
	}
}

func TestABlockedSendEndsWithItsStream(t *testing.T) {
	for _, dir := range both {
		for _, end := range []string{"cancel", "cut"} {
			lab.Run(t, func(l *lab.Lab) {
				ctx, cancel := context.WithCancel(l.Context())
				defer cancel()
				link := l.NewLink()
				f := start(ctx, l, link, dir, forward, every(0, 1000, event(1024)), readsNothing)
				time.Sleep(time.Minute)
				began := time.Now()
				if end == "cancel" {
					cancel()
				} else {
					link.Cut()
				}
				err := <-f.result
				if took := time.Since(began); took > lab.Latency || f.taken.Load() != 129 {
					l.Errorf("%s, %s: forward returned %v later, %d events taken", dir, end, took, f.taken.Load())
				}
				l.Logf("%s, %s: forward returned %q %v later, with 129 events taken", dir, end, err, time.Since(began))
			})
		}
	}
}

func TestAQueueTakesWhatTheSourceHas(t *testing.T) {
	const topic = 5000
	for _, dir := range both {
		for _, tt := range []struct {
			name    string
			forward forwarder
			want    int64
		}{
			{"straight to Send", forward, 128 + 1},
			// Its slots, one in the hand that puts, one in the Send that waits.
			{"through a channel of 1000", throughChannel(1000), 128 + 1000 + 2},
			{"through a queue", forwardThroughQueue, topic},
		} {
			lab.Run(t, func(l *lab.Lab) {
				ctx, cancel := context.WithCancel(l.Context())
				defer cancel()
				f := start(ctx, l, l.NewLink(), dir, tt.forward, every(0, topic, event(1024)), readsNothing)
				time.Sleep(time.Second)
				if taken := f.taken.Load(); taken != tt.want || f.sent.Load() != 128 {
					l.Errorf("%s, %s: %d taken from the source, %d by Send, want %d and 128", dir, tt.name, taken, f.sent.Load(), tt.want)
				}
				l.Logf("%s, %s: Send takes %d, and %d were taken from the source", dir, tt.name, f.sent.Load(), f.taken.Load())
			})
		}
	}
}

// 125 events a second, and a client that reads up to 250 a second for 2 s,
// stalls for 4 s, and reads on.
func TestMemoryFollowsTheQueue(t *testing.T) {
	chart := "xychart-beta\n    x-axis \"seconds (the client stalls from 2 to 6)\" 0 --> 12\n    y-axis \"events held (1 KiB each)\" 0 --> 600\n"
	for _, tt := range []struct {
		name    string
		forward forwarder
	}{
		{"queue", forwardThroughQueue}, {"channel of 125", throughChannel(125)}, {"Send", forward},
	} {
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			var held []int
			f := start(ctx, l, l.NewLink(), down, tt.forward, every(8*time.Millisecond, 1_000_000, event(1024)), func(recv func() error) {
				began := time.Now()
				for recv() == nil {
					time.Sleep(4 * time.Millisecond)
					if d := time.Since(began); d > 2*time.Second && d < 6*time.Second {
						time.Sleep(6*time.Second - d)
					}
				}
			})
			time.Sleep(300 * time.Microsecond) // between two events
			for range 13 {
				held = append(held, int(f.taken.Load()-f.received.Load()))
				time.Sleep(time.Second)
			}
			chart += fmt.Sprintf("    line [%s]\n", commas(held))
			l.Logf("%15s: held each second: %s", tt.name, commas(held))
		})
	}
	lab.Golden(t, "memory.mmd", chart)
}

func TestWhatAQueueHoldsDiesWithTheStream(t *testing.T) {
	for _, tt := range []struct {
		name    string
		forward forwarder
		lost    int64
	}{
		{"straight to Send", forward, 125}, {"through a channel of 1000", throughChannel(1000), 1126}, {"through a queue", forwardThroughQueue, 4900},
	} {
		lab.Run(t, func(l *lab.Lab) {
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			f := start(ctx, l, l.NewLink(), down, tt.forward, every(0, 5000, event(1024)), func(recv func() error) {
				for range 100 {
					recv()
				}
			})
			time.Sleep(time.Second)
			cancel()
			<-f.result
			lost := f.taken.Load() - f.received.Load()
			if lost != tt.lost {
				l.Errorf("%s: lost %d, want %d", tt.name, lost, tt.lost)
			}
			l.Logf("%s: the client read 100 and left; %d more were taken from the source, for nobody", tt.name, lost)
		})
	}
}

// countingCodec is the proto codec with a count of the encoded messages that
// gRPC has not let go of.
type countingCodec struct {
	encoding.CodecV2
	held *atomic.Int64
}

func (c countingCodec) Marshal(v any) (mem.BufferSlice, error) {
	data, err := proto.Marshal(v.(proto.Message))
	c.held.Add(1)
	return mem.BufferSlice{mem.NewBuffer(&data, pool{c.held})}, err
}

// pool is where a buffer goes when nobody needs it any more.
type pool struct{ held *atomic.Int64 }

func (pool) Get(n int) *[]byte { b := make([]byte, n); return &b }
func (p pool) Put(*[]byte)     { p.held.Add(-1) }

// Until an attempt is committed the client keeps each message for a retry, up
// to 256 KiB, with retries disabled, too (grpc's stream.go,
// bufferForRetryLocked). A status or a message that Recv returns commits, or
// Header, or the message that is too much.
func TestAClientKeepsWhatHasLeft(t *testing.T) {
	noRetry := []grpc.DialOption{grpc.WithDisableRetry()}
	for _, tt := range []struct {
		name string
		opts []grpc.CallOption
		read bool // the handler reads what it is sent
		ask  bool // the client waits for the header
		dial []grpc.DialOption
		held []int64 // after 128, 254 and 255 Sends
	}{
		{"a server that reads nothing", nil, false, false, noRetry, []int64{128}},
		{"a server that has read everything", nil, true, false, noRetry, []int64{128, 254, 0}},
		{"the same, with retries", nil, true, false, nil, []int64{128, 254, 0}},
		{"the same, after the header", nil, true, true, noRetry, []int64{0, 0, 0}},
		{"the same, with a retry buffer of 0 B", []grpc.CallOption{grpc.MaxRetryRPCBufferSize(0)}, true, false, noRetry, []int64{0, 0, 0}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			var held atomic.Int64
			codec := countingCodec{encoding.GetCodecV2("proto"), &held}
			link := l.NewLink()
			link.Serve(&server{upload: func(stream uploadServer) error {
				if tt.ask {
					stream.SendHeader(metadata.MD{})
				}
				for tt.read {
					if _, err := stream.Recv(); err != nil {
						return err
					}
				}
				return readNothing(stream)
			}})
			client := feedv1.NewFeedServiceClient(link.Dial(tt.dial...))
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			stream, err := client.UploadEvents(ctx, append(tt.opts, grpc.ForceCodecV2(codec))...)
			if err != nil {
				l.Fatal(err)
			}
			if tt.ask {
				stream.Header()
			}
			sent, ev := 0, event(1024)
			for i, want := range tt.held {
				for ; sent < []int{128, 254, 255}[i]; sent++ {
					if err := stream.Send(ev); err != nil {
						l.Fatal(err)
					}
				}
				time.Sleep(time.Second)
				if got := held.Load(); got != want {
					l.Errorf("%s: after %d Sends the client holds %d messages, want %d", tt.name, sent, got, want)
				}
				l.Logf("%s: after %d Sends the client holds %d messages", tt.name, sent, held.Load())
			}
		})
	}
}

// The server has no such buffer: it holds what has not left, 128 less the 63
// whole messages that fit into the window.
func TestAServerKeepsWhatHasNotLeft(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var held atomic.Int64
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		f := startWith(ctx, l, l.NewLink(), down, forward, every(0, 128, event(1024)), readsNothing,
			[]grpc.ServerOption{grpc.ForceServerCodecV2(countingCodec{encoding.GetCodecV2("proto"), &held})}, nil)
		time.Sleep(time.Second)
		if f.sent.Load() != 128 || held.Load() != 128-lab.Window/kib {
			l.Errorf("after %d Sends the server holds %d messages, want %d after 128", f.sent.Load(), held.Load(), 128-lab.Window/kib)
		}
		l.Logf("after %d Sends the server holds %d messages", f.sent.Load(), held.Load())
	})
}

// grpc.Server as an http.Handler reads the request's body into memory, whether
// the handler calls Recv or not (internal/transport/handler_server.go,
// HandleStreams), and so opens the window again and again.
func TestServeHTTPTakesEverythingOverTCP(t *testing.T) {
	const all = 4000
	count := func(l *lab.Lab, addr string, limit time.Duration) (n int) {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			l.Fatal(err)
		}
		defer conn.Close()
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := feedv1.NewFeedServiceClient(conn).UploadEvents(ctx)
		if err != nil {
			l.Fatal(err)
		}
		defer time.AfterFunc(limit, cancel).Stop()
		for ev := event(1024); n < all && stream.Send(ev) == nil; n++ {
		}
		return n
	}
	lab.OverTCP(t, func(l *lab.Lab) {
		srv := grpc.NewServer()
		feedv1.RegisterFeedServiceServer(srv, &server{upload: readNothing})
		var counts []int
		for _, way := range []struct {
			serve func(net.Listener) (end func())
			limit time.Duration
		}{
			{func(lis net.Listener) func() { go srv.Serve(lis); return func() { lis.Close() } }, 100 * time.Millisecond},
			{func(lis net.Listener) func() {
				var h2c http.Protocols
				h2c.SetUnencryptedHTTP2(true)
				web := &http.Server{Handler: srv, Protocols: &h2c}
				go web.Serve(lis)
				return func() { web.Close() }
			}, 5 * time.Second}, // it needs 50 ms
		} {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				l.Fatal(err)
			}
			end := way.serve(lis)
			counts = append(counts, count(l, lis.Addr().String(), way.limit))
			end()
		}
		srv.Stop()
		if most := sends(2*lab.Window, kib); counts[0] > most || counts[1] != all {
			l.Errorf("a handler that reads nothing: Serve took %d of %d Sends, ServeHTTP %d, want at most %d and all", counts[0], all, counts[1], most)
		}
		l.Logf("a handler that reads nothing: Serve took %d Sends of 1 KiB, ServeHTTP all %d", counts[0], counts[1])
	})
}
