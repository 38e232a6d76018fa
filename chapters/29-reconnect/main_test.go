package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const aDay = 24 * time.Hour

// isServer is the environment variable that makes this binary a server: its
// value is the server's life.
const isServer = "RECONNECT_SERVER"

// TestMain lets this binary be the server process, too. It ends when its
// parent does: then its standard input is closed.
func TestMain(m *testing.M) {
	if life, err := strconv.Atoi(os.Getenv(isServer)); err == nil {
		at := new(address)
		if _, err := (&server{life: life, each: time.Millisecond}).serve(at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(at.now.Load())
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// A feed is a server whose handlers know how many came before.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	handle func(n int, stream watchServer) error // n is 1 for the first

	mu sync.Mutex
	at []time.Time            // when each attempt came
	of map[string][]time.Time // by topic
}

func (f *feed) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	return f.handle(f.arrives(req.GetTopic()), stream)
}

// UploadEvents reads all, refuses twice, and then says how many it was.
func (f *feed) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	res := &feedv1.UploadResult{}
	_, err := stream.Recv()
	for ; err == nil; _, err = stream.Recv() {
		res.Received++
	}
	if err != io.EOF || f.arrives("") < 3 {
		return refuses(0, nil)
	}
	return stream.SendAndClose(res)
}

func (f *feed) arrives(topic string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at, f.of[topic] = append(f.at, time.Now()), append(f.of[topic], time.Now())
	return len(f.at)
}

func (f *feed) attempts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.at)
}

func refuses(int, watchServer) error { return status.Error(codes.Unavailable, "warming up") }

func answers(int, watchServer) error { return nil }

func stays(_ int, stream watchServer) error {
	stream.SendHeader(nil)
	<-stream.Context().Done()
	return stream.Context().Err()
}

// A scene is a feed, the link to it, and a client.
type scene struct {
	*lab.Lab
	ctx    context.Context // ends with the test
	feed   *feed
	link   *lab.Link
	srv    *grpc.Server
	conn   *grpc.ClientConn
	client feedv1.FeedServiceClient
	dials  atomic.Int32 // that failed, and connections that were lost
}

func play(t *testing.T, handle func(int, watchServer) error, body func(*scene), opts ...grpc.DialOption) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		sc := &scene{Lab: l, ctx: ctx, feed: &feed{handle: handle, of: map[string][]time.Time{}}, link: l.NewLink()}
		sc.srv = sc.link.Serve(sc.feed, serverOptions()...)
		// clientconn.go, resetTransportAndUnlock: resolveNow after a failed dial.
		r := manual.NewBuilderWithScheme("passthrough")
		r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: "lab"}}})
		r.ResolveNowCallback = func(resolver.ResolveNowOptions) { sc.dials.Add(1) }
		sc.conn = sc.link.Dial(append([]grpc.DialOption{grpc.WithResolvers(r)}, opts...)...)
		sc.client = feedv1.NewFeedServiceClient(sc.conn)
		body(sc)
	}, lab.Lasts(3*aDay))
}

// cut ends the connection, and refuses dials until the link is healed.
func (sc *scene) cut() {
	sc.link.Cut()
	time.Sleep(time.Second) // the client has noticed
}

func (sc *scene) untilADialFails() {
	for n := sc.dials.Load(); sc.dials.Load() == n; {
		time.Sleep(50 * time.Millisecond)
	}
}

// show logs what was seen, and fails if it is not so.
func (sc *scene) show(ok bool, format string, args ...any) {
	sc.Helper()
	if sc.Logf(format, args...); !ok {
		sc.Errorf("not so: "+format, args...)
	}
}

// watch opens a stream. It returns when and what Watch, and then Recv returned.
func (sc *scene) watch(ctx context.Context, opts ...grpc.CallOption) (opened time.Duration, open error, ended time.Duration, end error) {
	start := time.Now()
	stream, open := sc.client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys"}, opts...)
	for opened, end = time.Since(start), open; end == nil; {
		_, end = stream.Recv()
	}
	return opened, open, time.Since(start), end
}

// follower waits from 1 s to a minute, and always the longest.
func (sc *scene) follower() follower {
	return follower{sc.client, time.Second, time.Minute, func() float64 { return 1 }, func(error, time.Duration) {}}
}

// steady are the channel's own waits without chance.
func steady(most time.Duration) grpc.DialOption {
	return grpc.WithConnectParams(grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, MaxDelay: most},
		MinConnectTimeout: 20 * time.Second,
	})
}

func retries(attempts int) grpc.DialOption {
	return grpc.WithDefaultServiceConfig(fmt.Sprintf(`{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": %d,
		"initialBackoff": "1s", "maxBackoff": "8s", "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`, attempts))
}

// events sends an event each second.
func events(_ int, stream watchServer) error {
	return (&server{life: 1, each: time.Second}).Watch(nil, stream)
}

// The recording that the README shows: the server is stopped after its second
// event, and back four seconds later.
func TestTheRecordingIsFresh(t *testing.T) {
	play(t, events, func(sc *scene) {
		ctx, cancel := context.WithCancel(sc.ctx)
		f := sc.follower()
		f.waits = func(err error, d time.Duration) {
			sc.link.Note(lab.Client, "%v: waits %v", status.Code(err), d)
		}
		n := 0
		f.follow(ctx, "deploys", func(*feedv1.Event) {
			n++
			switch n {
			case 2:
				go func() {
					time.Sleep(500 * time.Millisecond)
					sc.link.Note(lab.Server, "the server is stopped")
					sc.srv.Stop()
					time.Sleep(4 * time.Second)
					sc.link.Note(lab.Server, "the server is started again")
					sc.link.Serve(sc.feed)
				}()
			case 3:
				cancel()
			}
		})
		var frames []string
		for line := range strings.Lines(sc.link.Ladder()) {
			if !strings.Contains(line, "SETTINGS  ACK") && !strings.Contains(line, "MAX_FRAME") && !strings.Contains(line, "GOAWAY") {
				frames = append(frames, line)
			}
		}
		lab.Golden(t, "wire.txt", strings.Join(frames, ""))
	}, steady(5*time.Second))
}

// A cut, with the network back at once: the channel is idle until somebody
// calls (clientconn.go, onClose in createTransport).
func TestNothingReopensAStream(t *testing.T) {
	play(t, stays, func(sc *scene) {
		stream, err := sc.client.Watch(sc.ctx, &feedv1.WatchRequest{})
		if err != nil {
			sc.Fatal(err)
		}
		time.Sleep(time.Second)
		sc.link.Cut()
		sc.link.Heal()
		_, err = stream.Recv()
		sc.link.Mark()
		time.Sleep(aDay)
		_, again := stream.Recv()
		state := sc.conn.GetState()
		sc.show(status.Code(err) == codes.Unavailable && fmt.Sprint(again) == fmt.Sprint(err) && state == connectivity.Idle && len(sc.link.Frames()) == 0 && sc.feed.attempts() == 1,
			"after a cut Recv says %v; a day later it says the same: %v, the channel is %v, %d frames were sent, the server saw %d attempts", status.Code(err), fmt.Sprint(again) == fmt.Sprint(err), state, len(sc.link.Frames()), sc.feed.attempts())
		start := time.Now()
		ctx, cancel := context.WithCancel(sc.ctx)
		stream, err = sc.client.Watch(ctx, &feedv1.WatchRequest{})
		opened := time.Since(start)
		sc.show(err == nil && opened == 3*lab.Latency, "a call of Watch dials, and opens a stream after %v (%v)", opened, err)
		cancel()
		stream.Recv()
	})
}

// stream.go, shouldRetry: a.transportStream.TrailersOnly.
func TestARetryPolicyEndsWithTheHeader(t *testing.T) {
	after := func(first func(watchServer)) func(int, watchServer) error {
		return func(n int, stream watchServer) error {
			if first(stream); n < 4 {
				return refuses(0, nil)
			}
			return nil
		}
	}
	for _, tt := range []struct {
		what   string
		handle func(int, watchServer) error
		want   int
		code   codes.Code
	}{
		{"refuses three times", after(func(watchServer) {}), 4, codes.OK},
		{"sends its header before it refuses", after(func(s watchServer) { s.SendHeader(nil) }), 1, codes.Unavailable},
		{"sets a header before it refuses", after(func(s watchServer) { s.SetHeader(metadata.Pairs("version", "1")) }), 1, codes.Unavailable},
		{"sends an event before it refuses", after(func(s watchServer) { s.Send(&feedv1.Event{}) }), 1, codes.Unavailable},
		{"is cut off before its header", func(n int, stream watchServer) error {
			if n == 1 {
				pause(stream.Context(), time.Hour)
			}
			return nil
		}, 2, codes.OK},
		{"is cut off after its header", stays, 1, codes.Unavailable},
	} {
		play(t, tt.handle, func(sc *scene) {
			time.AfterFunc(100*time.Millisecond, func() { sc.link.Cut(); sc.link.Heal() })
			_, _, took, err := sc.watch(sc.ctx)
			if err == io.EOF {
				err = nil
			}
			sc.show(sc.feed.attempts() == tt.want && status.Code(err) == tt.code, "a server that %s: %d attempts, and %v after %v, want %d and %v", tt.what, sc.feed.attempts(), err, took, tt.want, tt.code)
		}, retries(4))
	}
}

// hedging would send each call again every second until one is answered
// (gRFC A6). service_config.go, jsonMC: there is no such field.
const hedging = `{"methodConfig": [{"name": [{}], "hedgingPolicy": {"maxAttempts": 3,
	"hedgingDelay": "1s", "nonFatalStatusCodes": ["UNAVAILABLE"]}}]}`

// dialoptions.go, defaultMaxCallAttempts.
func TestARetryPolicyHasFiveAttemptsAtMost(t *testing.T) {
	for _, tt := range []struct {
		opts []grpc.DialOption
		want int
	}{
		{[]grpc.DialOption{retries(3)}, 3},
		{[]grpc.DialOption{retries(10)}, 5},
		{[]grpc.DialOption{retries(10), grpc.WithMaxCallAttempts(10)}, 10},
		{[]grpc.DialOption{retries(10), grpc.WithDisableRetry()}, 1},
		{[]grpc.DialOption{grpc.WithDefaultServiceConfig(hedging)}, 1},
	} {
		play(t, refuses, func(sc *scene) {
			_, _, _, err := sc.watch(sc.ctx)
			text := "rpc error: code = Unavailable desc = warming up"
			if tt.want > 1 {
				text = fmt.Sprintf("max retries exhausted: failed after %d attempts: %s", tt.want, text)
			}
			sc.show(sc.feed.attempts() == tt.want && err.Error() == text && status.Code(err) == codes.Unavailable, "%d attempts, code %v: %v, want %d", sc.feed.attempts(), status.Code(err), err, tt.want)
			for i, at := range sc.feed.at[1:] {
				base := time.Second << min(i, 3)
				if wait := at.Sub(sc.feed.at[i]) - 2*lab.Latency; wait < base*8/10 || wait > base*12/10 {
					sc.Errorf("wait %d was %v, want %v or a fifth more or less", i+1, wait, base)
				}
			}
		}, tt.opts...)
	}
}

// stream.go, bufferForRetryLocked: messages with their five bytes each.
func TestARetryNeedsWhatWasSent(t *testing.T) {
	const limit = 256 << 10
	for _, tt := range []struct {
		over int // bytes more than the limit
		opts []grpc.CallOption
		want int
	}{{0, nil, 3}, {1, nil, 1}, {1, []grpc.CallOption{grpc.MaxRetryRPCBufferSize(2 * limit)}, 3}} {
		play(t, nil, func(sc *scene) {
			stream, err := sc.client.UploadEvents(sc.ctx, tt.opts...)
			sent := 0
			for n := range 4 {
				ev := &feedv1.Event{Body: strings.Repeat("x", limit/4+n/3*tt.over-9)}
				if sent += 5 + proto.Size(ev); err == nil {
					err = stream.Send(ev)
				}
			}
			if err != nil {
				sc.Fatal(err)
			}
			res, err := stream.CloseAndRecv()
			sc.show(sent == limit+tt.over && sc.feed.attempts() == tt.want && (err == nil && res.GetReceived() == 4) == (tt.want == 3), "%d bytes sent in 4 messages: %d attempts, the last had %d messages, %v", sent, sc.feed.attempts(), res.GetReceived(), status.Code(err))
		}, retries(4))
	}
}

// A stream that waits for a place (chapter 26) when the connection ends has not
// left its client: stream.go, shouldRetry, allowTransparentRetry.
func TestDisableRetryLeavesTheTransparentRetry(t *testing.T) {
	play(t, stays, func(sc *scene) {
		sc.srv.Stop()
		time.Sleep(time.Second)
		sc.link.Serve(sc.feed, grpc.MaxConcurrentStreams(1))
		time.AfterFunc(time.Minute, func() { sc.link.Cut(); sc.link.Heal() })
		for range 2 {
			if _, err := sc.client.Watch(sc.ctx, &feedv1.WatchRequest{}, grpc.WaitForReady(true)); err != nil {
				sc.Fatal(err)
			}
		}
		sc.show(sc.Elapsed() > time.Minute, "a stream that waited for a place is opened on the next connection, after %v", sc.Elapsed())
	}, grpc.WithDisableRetry())
}

// clientconn.go: DialContext alone reads what WithBlock sets.
func TestNewClientWaitsForNoServer(t *testing.T) {
	conn, err := grpc.NewClient("passthrough:///nobody",
		grpc.WithBlock(), //lint:ignore SA1019 this test shows that it does nothing
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			t.Error("NewClient dials")
			return nil, net.ErrClosed
		}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if state := conn.GetState(); state != connectivity.Idle {
		t.Errorf("NewClient returned a channel that is %v, want IDLE", state)
	}
	t.Log("NewClient with WithBlock, where nobody listens: it returns, and the channel is IDLE")
}

// picker_wrapper.go, pick: a fail-fast call waits for a channel that connects
// for the first time, and for none that has failed. pickfirst.go: it stays in
// TRANSIENT_FAILURE while it dials again.
func TestAFailFastWatchWaitsForOneDial(t *testing.T) {
	for _, tt := range []struct {
		what string
		opts []grpc.DialOption
		down func(*scene)
		want time.Duration
	}{
		{"nobody listens", nil, func(*scene) {}, 2 * lab.Latency},
		{"a black hole", nil, func(sc *scene) { sc.link.Blackhole() }, 20 * time.Second},
		{"a black hole, dialOptions", dialOptions(), func(sc *scene) { sc.link.Blackhole() }, 5 * time.Second},
	} {
		play(t, stays, func(sc *scene) {
			sc.cut()
			tt.down(sc)
			first, err, _, _ := sc.watch(sc.ctx)
			sc.show(first == tt.want && status.Code(err) == codes.Unavailable, "%s: Watch says %v after %v, want Unavailable after %v", tt.what, err, first, tt.want)
			for range 100 { // in the middle of a dial, and between two
				if later, err, _, _ := sc.watch(sc.ctx); later != 0 || status.Code(err) != codes.Unavailable {
					sc.Fatalf("a later Watch returned %v after %v, want Unavailable at once", err, later)
				}
				time.Sleep(3 * time.Second)
			}
		}, tt.opts...)
	}
}

func TestWaitForReadyWaitsForEver(t *testing.T) {
	play(t, answers, func(sc *scene) {
		sc.cut()
		ctx, cancel := context.WithTimeout(sc.ctx, time.Hour)
		defer cancel()
		took, err, _, _ := sc.watch(ctx, grpc.WaitForReady(true))
		want := `latest balancer error: connection error: desc = "transport: Error while dialing: dial lab: connect: connection refused"`
		sc.show(took == time.Hour && status.Code(err) == codes.DeadlineExceeded && status.Convert(err).Message() == want, "WaitForReady and a deadline: %v after %v", err, took)
		time.AfterFunc(aDay, sc.link.Heal)
		took, err, _, _ = sc.watch(sc.ctx, grpc.WaitForReady(true))
		sc.show(err == nil && took > aDay && took <= aDay+2*time.Minute, "WaitForReady without one, the network is back after a day: %v after %v", err, took)
	}, steady(2*time.Minute))
}

// NewStream writes HEADERS, and waits for nothing (stream.go, newClientStream).
func TestAnOpenStreamIsNoAnswer(t *testing.T) {
	for _, tt := range []struct {
		what string
		end  time.Duration
		code codes.Code
		dead bool
	}{
		{"a server that refuses", 2 * lab.Latency, codes.Unavailable, false},
		{"a server without this method", 2 * lab.Latency, codes.Unimplemented, false},
		{"a network that is dead", time.Hour, codes.DeadlineExceeded, true},
	} {
		play(t, func(int, watchServer) error { return status.Error(tt.code, "no") }, func(sc *scene) {
			if tt.dead {
				sc.link.Blackhole()
			}
			ctx, cancel := context.WithTimeout(sc.ctx, time.Hour)
			defer cancel()
			opened, open, ended, end := sc.watch(ctx)
			sc.show(open == nil && opened == 0 && status.Code(end) == tt.code && ended == tt.end, "%s: Watch returns %v after %v, Recv %v after %v", tt.what, open, opened, status.Code(end), ended)
		})
	}
}

// A wait that is reset when the stream is open does not grow. And a wait ends
// with its context.
func TestAResetAtTheOpeningIsNoBackoff(t *testing.T) {
	for _, tt := range []struct {
		name   string
		follow func(follower, context.Context, string, func(*feedv1.Event)) error
		want   int
	}{{"followResettingAtTheOpening", follower.followResettingAtTheOpening, 594}, {"follow", follower.follow, 15}} {
		play(t, refuses, func(sc *scene) {
			ctx, cancel := context.WithTimeout(sc.ctx, 10*time.Minute)
			defer cancel()
			start := time.Now()
			err := tt.follow(sc.follower(), ctx, "deploys", func(*feedv1.Event) {})
			sc.show(err == context.DeadlineExceeded && time.Since(start) == 10*time.Minute && sc.feed.attempts() == tt.want, "%s at a server that refuses: %d attempts in %v, want %d in 10 minutes", tt.name, sc.feed.attempts(), time.Since(start), tt.want)
		})
	}
}

// An event is progress, a header and an hour without an event are none.
func TestFollowTakesAnEventForProgress(t *testing.T) {
	for _, final := range []codes.Code{codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented} {
		play(t, func(n int, stream watchServer) error {
			stream.SendHeader(nil)
			if n%4 == 0 {
				stream.Send(&feedv1.Event{})
			}
			time.Sleep(time.Hour)
			if n == 9 {
				return status.Error(final, "no")
			}
			return []error{nil, io.ErrUnexpectedEOF, refuses(0, nil)}[n%3]
		}, func(sc *scene) {
			var waits []int
			f := sc.follower()
			f.waits = func(_ error, d time.Duration) { waits = append(waits, int(d.Seconds())) }
			err := f.follow(sc.ctx, "deploys", func(*feedv1.Event) {})
			sc.show(fmt.Sprint(waits) == "[1 2 4 1 2 4 8 1]" && status.Code(err) == final && sc.feed.attempts() == 9, "streams of an hour, an event in the 4th and the 8th, %v in the 9th: waits of %v s, then %v", final, waits, err)
		})
	}
}

// internal/transport: a stream's buffer gives what has come before its end.
func TestFollowHandsOverNothingAfterItsContext(t *testing.T) {
	play(t, func(n int, stream watchServer) error {
		for range 60 {
			stream.Send(&feedv1.Event{})
		}
		return stays(n, stream)
	}, func(sc *scene) {
		ctx, cancel := context.WithTimeout(sc.ctx, 500*time.Millisecond)
		defer cancel()
		handled := 0
		err := sc.follower().follow(ctx, "deploys", func(*feedv1.Event) {
			handled++
			time.Sleep(200 * time.Millisecond)
		})
		sc.show(handled == 3 && err == context.DeadlineExceeded, "60 events have come, each takes 200ms, the context ends after 500ms: %d handled, want 3, then %v", handled, err)
	})
}

// clientconn.go, resetTransportAndUnlock: the channel waits after a failed dial,
// and calls fail meanwhile. The network is back right after a dial.
func TestTheChannelsBackoffIsAFloorUnderYours(t *testing.T) {
	for _, tt := range []struct {
		what   string
		opt    grpc.DialOption
		reset  bool
		want   time.Duration // until the next dial
		jitter time.Duration
		fails  []int32 // at least, at most
	}{
		{"a MaxDelay of 2m", steady(2 * time.Minute), false, 2 * time.Minute, 0, []int32{4, 4}},
		{"the default", grpc.EmptyDialOption{}, false, 2 * time.Minute, 24 * time.Second, []int32{3, 5}},
		{"a MaxDelay of 5s", steady(5 * time.Second), false, 5 * time.Second, 0, []int32{0, 0}},
		{"a MaxDelay of 2m, and ResetConnectBackoff", steady(2 * time.Minute), true, 0, 0, []int32{0, 0}},
	} {
		play(t, answers, func(sc *scene) {
			sc.cut()
			var failed atomic.Int32
			opened := make(chan time.Time)
			go func() { // the application
				for _, err, _, _ := sc.watch(sc.ctx); err != nil; _, err, _, _ = sc.watch(sc.ctx) {
					failed.Add(1)
					time.Sleep(30 * time.Second)
				}
				opened <- time.Now()
			}()
			time.Sleep(time.Hour)
			sc.untilADialFails()
			sc.link.Heal()
			sc.link.Mark()
			start, before := time.Now(), failed.Load()
			if tt.reset {
				sc.conn.ResetConnectBackoff()
			}
			back, dialled := (<-opened).Sub(start), sc.link.Frames()[0].At
			late, fails := dialled-tt.want, failed.Load()-before
			sc.show(late.Abs() < tt.jitter+100*time.Millisecond && fails >= tt.fails[0] && fails <= tt.fails[1] && back >= dialled && back < dialled+30*time.Second, "%s: an hour's outage ends, the channel dials after %v; an application that tries each 30s fails %d times, and has a stream after %v",
				tt.what, dialled.Round(time.Second), fails, back.Round(time.Second))
		}, tt.opt)
	}
}

// internal/backoff: a ConnectParams is taken as it is, zeros included.
func TestConnectParamsWithoutABackoffDoNotWait(t *testing.T) {
	for _, tt := range []struct {
		what        string
		opts        []grpc.DialOption
		least, most int
	}{
		{"MinConnectTimeout alone", []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 5 * time.Second})}, 280, 300},
		{"no ConnectParams", nil, 2, 3},
		{"dialOptions", dialOptions(), 2, 3},
	} {
		play(t, stays, func(sc *scene) {
			sc.cut()
			before := sc.dials.Load()
			sc.watch(sc.ctx)
			time.Sleep(3 * time.Second)
			dials := int(sc.dials.Load() - before)
			sc.show(dials >= tt.least && dials <= tt.most, "%s: %d dials in the first three seconds of an outage", tt.what, dials)
		}, tt.opts...)
	}
}

// 100 clients whose streams end at one instant, and a server that refuses for
// two minutes. Each client has random numbers of its own, the same in each run.
func TestClientsWithoutJitterComeBackAsOne(t *testing.T) {
	const clients, attempts = 100, 7
	busiest := func(random func(n int) func() float64) (all []int) {
		play(t, refuses, func(sc *scene) {
			ctx, cancel := context.WithTimeout(sc.ctx, 125*time.Second)
			defer cancel()
			var group sync.WaitGroup
			for n := range clients {
				f := sc.follower()
				f.random = random(n)
				group.Go(func() { f.follow(ctx, fmt.Sprint(n), func(*feedv1.Event) {}) })
			}
			group.Wait()
			for n := 1; n <= attempts; n++ { // after the first, which is all at once
				tenths := map[time.Duration]int{}
				for client := range clients {
					tenths[sc.feed.of[fmt.Sprint(client)][n].Sub(sc.feed.at[0])/(time.Second/10)]++
				}
				all = append(all, slices.Max(slices.Collect(maps.Values(tenths))))
			}
		})
		return all
	}
	same := busiest(func(int) func() float64 { return func() float64 { return 1 } })
	spread := busiest(func(n int) func() float64 { return rand.New(rand.NewPCG(uint64(n), 29)).Float64 })
	t.Logf("%d clients, attempts that come in one tenth of a second: %v without jitter, %v with it", clients, same, spread)
	if slices.Min(same) != clients || slices.Max(spread) > clients/3 || spread[attempts-1] > 5 {
		t.Errorf("%v attempts without jitter and %v with it come in one tenth of a second, want always %d, and a third of that at most and 5 at last", same, spread, clients)
	}
	list := func(n []int) string { return strings.ReplaceAll(fmt.Sprint(n), " ", ", ") }
	lab.Golden(t, "herd.mmd", fmt.Sprintf(`xychart-beta
    title "Of %d clients, how many try again in the same tenth of a second"
    x-axis "wait" [1 s, 2 s, 4 s, 8 s, 16 s, 32 s, 60 s]
    y-axis "attempts" 0 --> %d
    line "without jitter" %s
    line "with jitter" %s
`, clients, clients, list(same), list(spread)))
}

// A link that is cut or dead and then healed, and a server that is replaced.
// The longest way back: the channel dials 6 s later, an attempt right before
// that has failed and waits a minute, and a second later comes an event.
func TestFollowGoesOnAfterEachKindOfEnd(t *testing.T) {
	const longest = 68 * time.Second
	for _, tt := range []struct {
		what      string
		end, back func(*scene)
		notices   time.Duration
	}{
		{"a cut", func(sc *scene) { sc.link.Cut() }, func(sc *scene) { sc.link.Heal() }, 0},
		{"a black hole", func(sc *scene) { sc.link.Blackhole() }, func(sc *scene) { sc.link.Heal() }, 40 * time.Second},
		{"a server that is stopped", func(sc *scene) { sc.srv.Stop() }, func(sc *scene) { sc.link.Serve(sc.feed, serverOptions()...) }, lab.Latency},
	} {
		play(t, events, func(sc *scene) {
			ctx, cancel := context.WithCancel(sc.ctx)
			var ended, failed time.Duration
			var mu sync.Mutex // guards what follows
			var back time.Duration
			n, before := 0, 0
			f := sc.follower()
			f.waits = func(error, time.Duration) { failed = cmp.Or(failed, sc.Elapsed()) }
			go func() {
				time.Sleep(10 * time.Second)
				ended = sc.Elapsed()
				tt.end(sc)
				time.Sleep(10 * time.Minute)
				sc.untilADialFails()
				mu.Lock()
				before, back = n, sc.Elapsed()
				mu.Unlock()
				tt.back(sc)
			}()
			f.follow(ctx, "deploys", func(*feedv1.Event) {
				mu.Lock()
				defer mu.Unlock()
				if n++; back > 0 {
					cancel()
				}
			})
			took, noticed := sc.Elapsed()-back, failed-ended
			sc.show(before == 9 && n == 10 && took <= longest && noticed >= 0 && noticed <= tt.notices, "%s after %d events: Recv ends %v later; ten minutes later it is over, right after a dial, and the next event is handled after %v, want %v at most",
				tt.what, before, noticed.Round(time.Millisecond), took.Round(time.Millisecond), longest)
		}, dialOptions()...)
	}
}

// A quiet stream lives, with the pings of dialOptions.
func TestTheOptionsLetAQuietStreamLive(t *testing.T) {
	play(t, stays, func(sc *scene) {
		ctx, cancel := context.WithTimeout(sc.ctx, 6*time.Hour)
		defer cancel()
		err := sc.follower().follow(ctx, "deploys", func(*feedv1.Event) {})
		sc.show(sc.feed.attempts() == 1 && err == context.DeadlineExceeded, "6 hours without an event: %d attempt", sc.feed.attempts())
	}, dialOptions()...)
}

// nobody is an address that refuses: no system gives port 1 to who asks for any.
const nobody = "127.0.0.1:1"

// startServer starts a server process, and returns what kills it.
func startServer(t *testing.T, at *address, life int) (kill func()) {
	t.Helper()
	self, err := os.Executable()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", isServer, life))
	cmd.Stderr = os.Stderr
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	if err := cmp.Or(err, inErr, outErr, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() { cmd.Process.Kill(); in.Close(); cmd.Wait() })
	t.Cleanup(kill)
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server process has no address: %v", err)
	}
	at.now.Store(strings.TrimSpace(addr))
	return kill
}

// A restarted server has another port, as a process of somebody else could take
// the old one meanwhile. Nothing here depends on how long anything takes.
func TestFollowGoesOnWithARestartedServerOverTCP(t *testing.T) {
	at := new(address)
	kill := startServer(t, at, 1)
	quick := backoff.Config{BaseDelay: 5 * time.Millisecond, Multiplier: 1, MaxDelay: 5 * time.Millisecond}
	conn, err := grpc.NewClient("passthrough:///feed", grpc.WithContextDialer(at.dial), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: quick, MinConnectTimeout: time.Minute}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // of a test that hangs
	defer cancel()
	var story []string
	waits := 0
	f := follower{feedv1.NewFeedServiceClient(conn), 4 * time.Millisecond, 16 * time.Millisecond, rand.Float64, func(err error, _ time.Duration) {
		if waits++; waits == 3 {
			startServer(t, at, 2)
		}
		if status.Code(err) != codes.Unavailable {
			t.Errorf("an attempt ended with %v, want Unavailable", err)
		}
	}}
	f.follow(ctx, "deploys", func(ev *feedv1.Event) {
		switch story = append(story, ev.GetId()); ev.GetId() {
		case "life 1, event 2":
			at.now.Store(nobody)
			kill()
		case "life 2, event 2":
			cancel()
		}
	})
	second := slices.Index(story, "life 2, event 1") // what had come before a cancel is handled, too
	if second < 2 || len(story) < second+2 || waits < 3 || story[0] != "life 1, event 1" || strings.Contains(fmt.Sprint(story[:second]), "life 2") {
		t.Fatalf("events %q, %d waits, want two events of life 1, at least 3 waits, and two of life 2", story, waits)
	}
	t.Logf("the server process is killed, and another one started: %q, %d waits between", story, waits)
}
