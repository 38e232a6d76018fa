package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// TestMain silences gRPC, which prints a line for each connection that ends by
// too many PINGs.
func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	os.Exit(m.Run())
}

// A setup is what the two sides of a connection set.
type setup struct {
	name   string
	server []grpc.ServerOption
	client []grpc.DialOption
}

func asks(silence, patience time.Duration) setup {
	server, client := ask(silence, patience)
	return setup{fmt.Sprintf("both ask: %v, %v", silence, patience), server, client}
}

func serverAsks(silence, patience time.Duration) setup {
	return setup{fmt.Sprintf("server asks: %v, %v", silence, patience), []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: silence, Timeout: patience}),
	}, nil}
}

func clientAsks(silence, patience time.Duration) setup {
	server, client := askUnannounced(silence, patience)
	return setup{fmt.Sprintf("client asks: %v, %v", silence, patience), server, client}
}

// A bench is a set-up at work on a link, which notes when its connection ends.
type bench struct {
	*lab.Link
	feed   *feed
	conn   *grpc.ClientConn
	client feedv1.FeedServiceClient
	start  time.Time         // the ladder's zero
	closed [2]chan time.Time // at the client, at the server
}

func newBench(l *lab.Lab, s setup, opts ...lab.LinkOption) *bench {
	b := &bench{Link: l.NewLink(opts...), feed: &feed{ended: make(chan end, 100)}}
	b.serve(b.feed, s)
	return b
}

func (b *bench) serve(svc feedv1.FeedServiceServer, s setup) {
	b.closed = [2]chan time.Time{make(chan time.Time, 100), make(chan time.Time, 100)}
	b.Serve(svc, append(s.server, grpc.StatsHandler(closing{b.closed[lab.Server]}))...)
	b.conn = b.Dial(append(s.client, grpc.WithStatsHandler(closing{b.closed[lab.Client]}))...)
	b.client, b.start = feedv1.NewFeedServiceClient(b.conn), time.Now()
}

// closing is a stats.Handler that says when a connection has ended.
type closing struct{ at chan time.Time }

func (c closing) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnEnd); ok {
		c.at <- time.Now()
	}
}
func (closing) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (closing) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (closing) HandleRPC(context.Context, stats.RPCStats)                         {}

// pull makes the link a black hole, and returns how long after the last byte
// that it had read each side closed the connection; 0 if it has not in a day.
func (b *bench) pull() (client, server time.Duration) {
	b.Blackhole()
	at := time.Since(b.start)
	var read [2]time.Duration
	for _, f := range b.Frames() {
		if arrived := f.At + lab.Latency; f.Type != "" && arrived <= at {
			read[1-f.From] = arrived
		}
	}
	time.Sleep(24 * time.Hour)
	took := func(side lab.Side) time.Duration {
		select {
		case at := <-b.closed[side]:
			return at.Sub(b.start) - read[side]
		default:
			return 0
		}
	}
	return took(lab.Client), took(lab.Server)
}

// pings counts the questions of a side.
func (b *bench) pings(side lab.Side) (n int) {
	for _, f := range b.Frames() {
		if f.Type == "PING" && f.Text != "ACK" && f.From == side {
			n++
		}
	}
	return n
}

// watching opens a stream in the background, and returns when its event has
// come. The channel has what ended it.
func (b *bench) watching(ctx context.Context) <-chan end {
	up, gaveUp := make(chan bool, 1), make(chan end, 1)
	go func() {
		err := watch(ctx, b.client, func(*feedv1.Event) { up <- true })
		gaveUp <- end{time.Now(), err}
	}()
	<-up
	time.Sleep(time.Millisecond)
	return gaveUp
}

// long is more than a day in the lab.
func long() lab.Option { return lab.Lasts(100 * time.Hour) }

func words(d time.Duration) string {
	switch d {
	case 0:
		return "not in a day"
	case 30 * time.Minute:
		return "30m0s *"
	}
	return d.String()
}

// service is a feed whose Watch is a function.
type service struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(watchServer) error
}

func (s service) Watch(_ *feedv1.WatchRequest, stream watchServer) error { return s.watch(stream) }

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The clock is set to zero as the client reads the last byte.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := serverAsks(30*time.Second, 5*time.Second)
		s.client = clientAsks(10*time.Second, 5*time.Second).client
		b := newBench(l, s)
		err := watch(l.Context(), b.client, func(*feedv1.Event) {
			b.Mark()
			b.Note(lab.Client, "an event has come; the cable is pulled, and nobody is told")
			b.Blackhole()
		})
		b.Note(lab.Client, "Recv: %v: %s", status.Code(err), status.Convert(err).Message())
		if status.Code(err) != codes.Unavailable {
			l.Errorf("Recv returned %v, want Unavailable", err)
		}
		b.Note(lab.Server, "the handler's context: %v", (<-b.feed.ended).err)
		lab.Golden(t, "wire.txt", b.Ladder())
	})
}

func TestTheTableIsFresh(t *testing.T) {
	const second = time.Second
	text := fmt.Sprintf("%-32s  %-30s  %s\n%32s  %-15s%-15s  %-15s%s\n", "", "a silent stream", "no stream", "", "client", "server", "client", "server")
	for _, tt := range []struct {
		setup
		want [4]time.Duration // a silent stream: client, server; no stream: client, server
	}{
		{setup{name: "nothing is set"}, [4]time.Duration{0, 2*time.Hour + 20*second, 30 * time.Minute, 2*time.Hour + 20*second}},
		{serverAsks(30*second, 5*second), [4]time.Duration{0, 35 * second, 30 * time.Minute, 35 * second}},
		{clientAsks(10*second, 5*second), [4]time.Duration{15 * second, 2*time.Hour + 20*second, 30 * time.Minute, 2*time.Hour + 20*second}},
		{asks(20*second, 10*second), [4]time.Duration{30 * second, 30 * second, 30 * second, 30 * second}},
	} {
		var got [4]time.Duration
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l, tt.setup)
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			b.watching(ctx)
			time.Sleep(7 * time.Second) // count from the last byte, not from the pull
			got[0], got[1] = b.pull()
		}, long())
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l, tt.setup)
			b.client.Publish(l.Context(), &feedv1.PublishRequest{}) // Unimplemented, but it goes there and back
			time.Sleep(7 * time.Second)
			got[2], got[3] = b.pull()
		}, long())
		if got != tt.want {
			t.Errorf("%s: noticed after %v, want %v", tt.name, got, tt.want)
		}
		text += strings.TrimRight(fmt.Sprintf("%-32s  %-15s%-15s  %-15s%s", tt.name, words(got[0]), words(got[1]), words(got[2]), words(got[3])), " ") + "\n"
	}
	text += "* a channel closes a connection over which there was no call for 30 minutes, dead or alive\n"
	lab.Golden(t, "table.txt", text)
	t.Log("\n" + text)
}

func TestTheFloorsAreTenSecondsAndOne(t *testing.T) {
	for _, tt := range []struct {
		set, client, server time.Duration
	}{
		{time.Millisecond, 10 * time.Second, time.Second},
		{0, 10 * time.Second, 2 * time.Hour},
		{9 * time.Second, 10 * time.Second, 9 * time.Second},
		{11 * time.Second, 11 * time.Second, 11 * time.Second},
	} {
		for side, want := range []time.Duration{tt.client, tt.server} {
			lab.Run(t, func(l *lab.Lab) {
				s := serverAsks(tt.set, time.Second)
				if side == int(lab.Client) {
					s = clientAsks(tt.set, time.Second)
				}
				ctx, cancel := context.WithCancel(l.Context())
				defer cancel()
				b := newBench(l, s)
				b.watching(ctx)
				closed := [2]time.Duration{}
				closed[0], closed[1] = b.pull()
				if got := closed[side] - time.Second; got != want {
					l.Errorf("%v set at the %v: it asked after %v, want %v", tt.set, lab.Side(side), got, want)
				}
				l.Logf("%v set at the %v: it asks after %v", tt.set, lab.Side(side), want)
			}, long())
		}
	}
}

func TestWhoHearsSomethingDoesNotAsk(t *testing.T) {
	eager := serverAsks(10*time.Second, 5*time.Second)
	eager.client = clientAsks(20*time.Second, 5*time.Second).client
	for _, tt := range []struct {
		name           string
		setup          setup
		beat           time.Duration
		client, server int
	}{
		{"both ask after 20s, and there is an event each 15s", asks(20*time.Second, 5*time.Second), 15 * time.Second, 0, 179},
		{"the client asks after 20s, the server after 10s", eager, 0, 0, 359},
	} {
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l, tt.setup)
			b.feed.beat = tt.beat
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			b.watching(ctx)
			time.Sleep(time.Hour)
			if client, server := b.pings(lab.Client), b.pings(lab.Server); client != tt.client || server != tt.server {
				l.Errorf("%s: in an hour the client asked %d times and the server %d times, want %d and %d", tt.name, client, server, tt.client, tt.server)
			}
			l.Logf("%s: in an hour the client asked %d times, the server %d times", tt.name, tt.client, tt.server)
		}, long())
	}
}

func TestAnAnswerKeepsTheConnection(t *testing.T) {
	for _, scene := range []string{"a silent stream", "no stream"} {
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l, asks(20*time.Second, 10*time.Second))
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			if scene != "no stream" {
				b.watching(ctx)
			}
			time.Sleep(24 * time.Hour)
			n := b.pings(lab.Client) + b.pings(lab.Server)
			if len(b.closed[0])+len(b.closed[1]) > 0 || n < 4300 || n > 8640 {
				l.Errorf("%s: after a day of %d PINGs the connection has ended, want it alive and about one each 20s and side at most", scene, n)
			}
			l.Logf("%s: alive after a day and %d PINGs", scene, n)
		}, long())
	}
}

// The handler sends 1,000 B at a time to a client that does not read.
func TestABlockedSendIsNoHindrance(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{Link: l.NewLink()}
		var sent atomic.Int32
		failed := make(chan end, 1)
		b.serve(service{watch: func(stream watchServer) error {
			for {
				if err := stream.Send(&feedv1.Event{Body: strings.Repeat("x", 1000)}); err != nil {
					failed <- end{time.Now(), err}
					return err
				}
				sent.Add(1)
			}
		}}, asks(20*time.Second, 10*time.Second))
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		if _, err := b.client.Watch(ctx, &feedv1.WatchRequest{}); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Hour)
		if len(failed) > 0 || sent.Load() != 131 {
			l.Errorf("Sends that failed: %d, that returned nil: %d, want none and 131, and one blocked for the hour in which the peer answers", len(failed), sent.Load())
		}
		client, server := b.pull()
		if client != 30*time.Second || server != 30*time.Second || len(failed) != 1 {
			l.Fatalf("the client noticed after %v, the server after %v, Sends that failed: %d, want 30s, 30s and 1", client, server, len(failed))
		}
		l.Logf("after %d Sends one was blocked for an hour; pulled: the client noticed after %v, the server after %v, and Send returned %v", sent.Load(), client, server, (<-failed).err)
	}, long())
}

func TestAStuckHandlerIsNotNoticed(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{Link: l.NewLink()}
		stuck := make(chan bool)
		b.serve(service{watch: func(watchServer) error { <-stuck; return nil }}, asks(20*time.Second, 10*time.Second))
		ended := make(chan error, 1)
		go func() { ended <- watch(l.Context(), b.client, nil) }()
		time.Sleep(3 * time.Hour)
		if len(ended) > 0 || b.pings(lab.Client) == 0 {
			l.Errorf("a handler is stuck: streams that ended: %d, questions: %d, want none and some", len(ended), b.pings(lab.Client))
		}
		l.Logf("the handler has been stuck for 3h; the client asked %d times and was answered each time", b.pings(lab.Client))
		close(stuck)
		<-ended
	}, long())
}

func TestATimeoutBelowTheRoundTripEndsTheHealthy(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l, asks(20*time.Second, 2*lab.Latency-time.Millisecond))
		gaveUp := b.watching(l.Context())
		e := <-gaveUp
		if took := e.at.Sub(b.start).Round(100 * time.Millisecond); took != 20*time.Second || status.Code(e.err) != codes.Unavailable {
			l.Errorf("the stream ended after %v with %v, want 20s and Unavailable", took, e.err)
		}
		l.Logf("round trip %v, patience %v: %v", 2*lab.Latency, 2*lab.Latency-time.Millisecond, e.err)
	})
}

// A client that asks each 10s, and a server that nobody has told.
func TestTheThirdStrikeEndsTheStream(t *testing.T) {
	silent := func(stream watchServer) error { <-stream.Context().Done(); return nil }
	event := func(stream watchServer) error { stream.Send(&feedv1.Event{}); return silent(stream) }
	for _, tt := range []struct {
		name  string
		watch func(watchServer) error
		opts  []lab.LinkOption
		want  time.Duration
	}{
		{"fixed windows, the server sends nothing", silent, nil, 41035959 * time.Microsecond},
		{"fixed windows, it sends one event", event, nil, 41051370 * time.Microsecond},
		{"windows by gRPC, whose PING counts, one event", event, []lab.LinkOption{lab.WithBDP()}, 31051370 * time.Microsecond},
	} {
		lab.Run(t, func(l *lab.Lab) {
			b := &bench{Link: l.NewLink(tt.opts...)}
			b.serve(service{watch: tt.watch}, clientAsks(10*time.Second, 5*time.Second))
			err := watch(l.Context(), b.client, func(*feedv1.Event) {})
			took, n := time.Since(b.start), b.pings(lab.Client)
			if took != tt.want || n != 4 || status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "too_many_pings") {
				l.Errorf("%s: the stream ended after %v and %d PINGs with %v, want %v, 4 and too_many_pings", tt.name, took, n, err, tt.want)
			}
			l.Logf("%s: %v, %d PINGs: %v", tt.name, took, n, err)
		})
	}
}

func TestEventsForgiveStrikes(t *testing.T) {
	const sec = time.Second
	for _, tt := range []struct{ events, calls, want time.Duration }{
		{25 * sec, 0, 0}, {0, 25 * sec, 0}, {45 * sec, 0, 41051370 * time.Microsecond},
	} {
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l, clientAsks(10*sec, 5*sec))
			b.feed.beat = tt.events
			ctx, cancel := context.WithTimeout(l.Context(), time.Hour)
			defer cancel()
			gaveUp := b.watching(ctx)
			for tt.calls > 0 && ctx.Err() == nil {
				b.client.Publish(ctx, &feedv1.PublishRequest{}) // a status, and no event
				time.Sleep(tt.calls)
			}
			e := <-gaveUp
			took := e.at.Sub(b.start)
			if took != tt.want && (tt.want != 0 || status.Code(e.err) != codes.DeadlineExceeded) {
				l.Errorf("an event each %v, a call each %v: the stream ended after %v with %v, want %v", tt.events, tt.calls, took, e.err, words(tt.want))
			}
			l.Logf("an event each %v, a call each %v: %v and %d PINGs later %v", tt.events, tt.calls, took, b.pings(lab.Client), e.err)
		}, long())
	}
}

func TestEachGoAwayDoublesTheSilence(t *testing.T) {
	var lived, noticed []string // s
	for deaths := range 6 {
		lived = nil
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l, clientAsks(10*time.Second, 5*time.Second))
			for range deaths {
				start := time.Now()
				<-b.watching(l.Context())
				lived = append(lived, fmt.Sprintf("%.0f", time.Since(start).Seconds()))
				<-b.closed[lab.Client]
				time.Sleep(5 * time.Second) // the channel connects again
			}
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			b.watching(ctx)
			client, _ := b.pull()
			noticed = append(noticed, fmt.Sprint(client.Seconds()))
		}, long())
	}
	if got, want := strings.Join(noticed, ", "), "15, 25, 45, 85, 165, 325"; got != want {
		t.Errorf("after 0, 1, 2 … streams that died a dead server is noticed after %s s, want %s", got, want)
	}
	if got, want := strings.Join(lived, ", "), "41, 81, 161, 321, 641"; got != want {
		t.Errorf("the streams lived %s s, want %s", got, want)
	}
	t.Logf("the streams lived %s s; a dead server is noticed after %s s", lived, noticed)
	lab.Golden(t, "growth.mmd", fmt.Sprintf(`xychart-beta
    title "A client that asks after 10 s, and a server that allows a PING in 5 min"
    x-axis "streams that have died of too_many_pings" [0, 1, 2, 3, 4, 5]
    y-axis "s until a dead server is noticed" 0 --> 350
    bar [%s]
`, strings.Join(noticed, ", ")))
}

func TestBothSidesMustPermitPINGsWithoutStreams(t *testing.T) {
	always := []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}),
		grpc.WithIdleTimeout(0),
	}
	for _, tt := range []struct {
		name   string
		policy keepalive.EnforcementPolicy
		want   time.Duration
	}{
		{"MinTime alone", keepalive.EnforcementPolicy{MinTime: 5 * time.Second}, 40035959 * time.Microsecond},
		{"PermitWithoutStream alone", keepalive.EnforcementPolicy{PermitWithoutStream: true}, 40035959 * time.Microsecond},
		{"both", keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}, 0},
	} {
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l, setup{"", []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(tt.policy)}, always})
			time.Sleep(3 * time.Hour)
			var took time.Duration
			if len(b.closed[lab.Client]) > 0 {
				took = (<-b.closed[lab.Client]).Sub(b.start)
			}
			if took != tt.want {
				l.Errorf("%s at the server: a connection without streams ended after %v, want %v", tt.name, words(took), words(tt.want))
			}
			l.Logf("%s at the server: ended after %v", tt.name, words(took))
		}, long())
	}
}

// Without streams this client does not ask; when a call comes it does, at once.
func TestTheNextCallMakesAClientAsk(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		b := newBench(l, clientAsks(10*time.Second, 5*time.Second))
		b.Blackhole()
		time.Sleep(20 * time.Minute)
		start := time.Now()
		_, err := b.client.Publish(l.Context(), &feedv1.PublishRequest{})
		if took := time.Since(start); took != 5*time.Second || status.Code(err) != codes.Unavailable {
			l.Errorf("a call on a connection that has been dead for 20 minutes returned %v after %v, want Unavailable after 5s", err, took)
		}
		l.Logf("dead for 20 minutes, and the next call returned after %v: %v", time.Since(start), err)
	}, long())
}

func TestAChannelWithoutCallsClosesItsConnection(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := asks(20*time.Second, 10*time.Second)
		s.client = s.client[:1] // without WithIdleTimeout
		b := newBench(l, s)
		if took := (<-b.closed[lab.Client]).Sub(b.start); took.Round(time.Second) != 30*time.Minute || b.conn.GetState() != connectivity.Idle {
			l.Errorf("the channel is %v, its connection ended after %v, want IDLE and 30m", b.conn.GetState(), took)
		}
		l.Logf("answered PINGs: %d; after %v the channel is %v", b.pings(lab.Client)+b.pings(lab.Server), time.Since(b.start).Round(time.Second), b.conn.GetState())
	}, long())
}

// relay is a proxy: it has two connections, and passes events on.
type relay struct {
	feedv1.UnimplementedFeedServiceServer
	upstream feedv1.FeedServiceClient
}

func (r relay) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	events, err := r.upstream.Watch(stream.Context(), req)
	for err == nil {
		var ev *feedv1.Event
		if ev, err = events.Recv(); err == nil {
			err = stream.Send(ev)
		}
	}
	return err
}

// proxied is a feed behind a relay. Both sides of the front connection ask.
func proxied(l *lab.Lab, beat time.Duration) (front, back *bench) {
	back, front = newBench(l, setup{}), &bench{Link: l.NewLink()}
	back.feed.beat = beat
	front.serve(relay{upstream: back.client}, asks(20*time.Second, 10*time.Second))
	return front, back
}

func TestAProxyAnswersForADeadServer(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		front, back := proxied(l, 0)
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		gaveUp := front.watching(ctx)
		back.Blackhole()
		time.Sleep(3 * time.Hour)
		asked, passed := front.pings(lab.Client), back.pings(lab.Client)
		if len(gaveUp) > 0 || asked == 0 || passed != 0 {
			l.Errorf("the server behind the proxy is gone: streams that ended: %d, PINGs to the proxy: %d, passed on: %d, want 0, some, 0", len(gaveUp), asked, passed)
		}
		l.Logf("the server has been gone for 3h; the client asked %d times, the proxy answered, and passed on %d", asked, passed)
		back.Heal()
	}, long())
}

func TestAMissingBeatCrossesAProxy(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		front, back := proxied(l, 10*time.Second)
		var heard time.Time
		gaveUp := make(chan end, 1)
		go func() {
			slow := func(*feedv1.Event) { time.Sleep(45 * time.Second) } // is no silence
			err := watchBeats(l.Context(), front.client, 30*time.Second, slow)
			gaveUp <- end{time.Now(), err}
		}()
		time.Sleep(time.Hour)
		if len(gaveUp) > 0 {
			l.Fatalf("watchBeats ended within the hour in which it heard each beat: %v", (<-gaveUp).err)
		}
		leaving, leave := context.WithCancelCause(l.Context())
		time.AfterFunc(time.Second, func() { leave(errSilent) })
		err := watchBeats(leaving, front.client, 30*time.Second, func(*feedv1.Event) {})
		if errors.Is(err, errSilent) || status.Code(err) != codes.Canceled {
			l.Errorf("its caller cancelled, and watchBeats returned %v, want Canceled", err)
		}
		for _, f := range front.Frames() {
			if f.Type == "DATA" && f.From == lab.Server {
				heard = front.start.Add(f.At + lab.Latency)
			}
		}
		back.Blackhole()
		e := <-gaveUp
		if took := e.at.Sub(heard); took.Round(time.Second) != 30*time.Second || !errors.Is(e.err, errSilent) {
			l.Errorf("watchBeats returned %v %v after the last beat, want %v and 30s", e.err, took, errSilent)
		}
		l.Logf("heard for an hour; pulled behind the proxy, and watchBeats returned %q %v after the last beat", e.err, e.at.Sub(heard))
		back.Heal()
	}, long())
}
