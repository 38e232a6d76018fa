package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// breakable is bufconn with a network that can break.
type breakable struct {
	*bufconn.Listener
	mu   sync.Mutex
	ends []net.Conn
	down bool
	mute bool // who is dialed says nothing
}

func newBreakable() *breakable { return &breakable{Listener: bufconn.Listen(1 << 20)} }

func (b *breakable) DialContext(ctx context.Context) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, errors.New("the network is down")
	}
	lis := b.Listener
	if b.mute {
		lis = bufconn.Listen(1 << 20)
		go lis.Accept()
	}
	conn, err := lis.DialContext(ctx)
	if err == nil {
		b.ends = append(b.ends, conn)
	}
	return conn, err
}

// cut closes all connections. The next ones fail if the network stays down.
func (b *breakable) cut(down bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.down = down
	for _, end := range b.ends {
		end.Close()
	}
	b.ends = nil
}

// start serves svc on lis. The server ends with the test at the latest.
func start(t *testing.T, lis net.Listener, svc feedv1.FeedServiceServer, opts ...grpc.ServerOption) *grpc.Server {
	srv := grpc.NewServer(opts...)
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis)
	t.Cleanup(srv.Stop)
	return srv
}

// client returns a connection that is closed with the test at the latest.
func client(t *testing.T, target string, lis listener, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(target, append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// connect brings conn up.
func connect(t *testing.T, conn *grpc.ClientConn) *grpc.ClientConn {
	conn.Connect()
	for state := conn.GetState(); state != connectivity.Ready; state = conn.GetState() {
		conn.WaitForStateChange(t.Context(), state)
	}
	synctest.Wait()
	return conn
}

// count counts the goroutines that goleak found.
func count(found error) int {
	if found == nil {
		return 0
	}
	return strings.Count(found.Error(), "on top of the stack")
}

// goroutines counts those of this bubble: runtime.NumGoroutine also counts
// what other tests have left to end.
func goroutines() int {
	all := stacks()
	own, _, _ := strings.Cut(all, "\n")
	return strings.Count(all, own[strings.Index(own, "synctest bubble"):])
}

// stacks returns the dump of all goroutines, of which the caller is the first.
func stacks() string {
	buf := make([]byte, 4<<20)
	return string(buf[:runtime.Stack(buf, true)])
}

// attempts is a stats.Handler that counts attempts.
type attempts struct{ begun, ended atomic.Int64 }

func (a *attempts) HandleRPC(_ context.Context, s stats.RPCStats) {
	switch s.(type) {
	case *stats.Begin:
		a.begun.Add(1)
	case *stats.End:
		a.ended.Add(1)
	}
}
func (*attempts) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (*attempts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (*attempts) HandleConn(context.Context, stats.ConnStats)                       {}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		before := goleak.IgnoreCurrent()
		link := l.NewLink()
		srv := link.Serve(slowly{})
		conn := link.Dial()
		feed := feedv1.NewFeedServiceClient(conn)
		look := func(when string, ignore ...goleak.Option) {
			link.Note(lab.Client, "%s: goleak finds %s", when, summary(goleak.Find(append(ignore, before)...)))
		}
		takeFirstAndCancel(l.Context(), feed, "alerts")
		time.Sleep(100 * time.Millisecond)
		look("cancelled", transport()...)
		time.Sleep(100 * time.Millisecond)
		takeFirst(context.Background(), feed, "alerts")
		time.Sleep(100 * time.Millisecond)
		look("left open", transport()...)
		time.Sleep(100 * time.Millisecond)
		conn.Close()
		srv.Stop()
		time.Sleep(100 * time.Millisecond)
		look("all closed")
		lab.Golden(t, "wire.txt", link.Ladder())
	})
}

// slowly is server with a step between the frames of its side.
type slowly struct{ server }

func (s slowly) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	time.Sleep(time.Millisecond)
	return s.server.Watch(req, stream)
}

func TestAfterCloseGoleakSeesNoAbandonedStream(t *testing.T) {
	abandon := func(feed feedv1.FeedServiceClient) { takeFirst(context.Background(), feed, "alerts") }
	nothing := 0
	for range 100 {
		inBubble(t, func(t *testing.T) {
			if leaksAfterClose(bufconn.Listen(1<<20), server{}, abandon) == nil {
				nothing++
			}
		})
	}
	if nothing != 100 {
		t.Errorf("after Close and Stop goleak found nothing %d times in 100, want 100", nothing)
	}
	inBubble(t, func(t *testing.T) {
		left := summary(leaks(bufconn.Listen(1<<20), server{}, abandon))
		if want := "1 of 1 streams never ended, newClientStreamWithParams.func4, server.Watch"; left != want {
			t.Errorf("while the connection is open leaks finds %s, want %s", left, want)
		}
		t.Logf("after Close: nothing, %d times in 100; before: %s", nothing, left)
	})
}

// A test that cancels when its client has returned does the client's work.
func TestTheTestsOwnCancelHidesTheLeak(t *testing.T) {
	for _, cancels := range []bool{true, false} {
		inBubble(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			left := leaks(bufconn.Listen(1<<20), server{}, func(feed feedv1.FeedServiceClient) {
				takeFirst(ctx, feed, "alerts")
				if cancels {
					cancel()
				}
			})
			if cancels != (left == nil) {
				t.Errorf("the test cancels before leaks looks: %v, and leaks finds %s", cancels, summary(left))
			}
			t.Logf("the test cancels before leaks looks: %v, and leaks finds %s", cancels, summary(left))
		})
	}
}

// The program runs over TCP and in real time.
func TestOverTCPItIsTheSame(t *testing.T) {
	var story strings.Builder
	if err := run(t.Context(), &story, 0); err != nil {
		t.Fatal(err)
	}
	want := `A client takes an event and cancels its stream:
  goleak when all is closed: nothing
  goleak while it is open: nothing
A client takes an event and leaves its stream:
  goleak when all is closed: nothing
  goleak while it is open: 1 of 1 streams never ended, newClientStreamWithParams.func4, server.Watch
`
	if story.String() != want {
		t.Errorf("the program says\n%s\nwant\n%s", &story, want)
	}
	t.Logf("\n%s", &story)
}

// A client that the detectors watch.
type watched struct {
	*testing.T
	lis  *breakable
	conn *grpc.ClientConn
	feed feedv1.FeedServiceClient
	end  chan bool // closed when all have looked: ends what is left
}

func (w watched) cancel() { takeFirstAndCancel(w.Context(), w.feed, "alerts") }

func (w watched) leave(topic string) { takeFirst(context.Background(), w.feed, topic) }

func (w watched) startGoroutine() { go func() { <-w.end }() }

// poll starts a goroutine that ends when the connection is closed.
func (w watched) poll() {
	go func() {
		for err := error(nil); status.Code(err) != codes.Canceled; time.Sleep(77 * time.Millisecond) {
			_, err = w.feed.Publish(context.Background(), &feedv1.PublishRequest{})
		}
	}()
}

// retried opens a stream where there is no room for it. The connection breaks
// meanwhile, so that grpc-go opens it once more on the next one.
func (w watched) retried() {
	first, err := w.feed.Watch(w.Context(), &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		w.Fatal(err)
	}
	time.AfterFunc(time.Second, func() { w.lis.cut(false) })
	w.cancel()
	for err == nil {
		_, err = first.Recv()
	}
}

// What each detector counts, one line for each thing that clients do.
func TestEachDetectorSeesItsOwnPart(t *testing.T) {
	table := fmt.Sprintf("%-39s%-12s%-13s%-25s%-9s%s\n%-39s%-12s%-13s%-12s%-13s%-9s%s\n",
		"", "goroutines", "goleak when", "goleak while it is open", "streams", "stats.",
		"the client ...", "counted", "all closed", "baseline", "transport()", "open", "Handler")
	for _, tt := range []struct {
		what string
		leak bool
		do   func(watched)
	}{
		{"cancels its stream", false, watched.cancel},
		{"leaves it, and the handler waits", true, func(w watched) { w.leave("alerts") }},
		{"leaves it, and the server has ended it", true, func(w watched) { w.leave("over") }},
		{"leaves a goroutine of its own", true, watched.startGoroutine},
		{"leaves a goroutine that polls", true, watched.poll},
		{"cancels, and the handler ignores it", true, func(w watched) { takeFirstAndCancel(w.Context(), w.feed, "deaf") }},
		{"forgets to close a connection", true, func(w watched) { client(w.T, target, w.lis).Connect() }},
		{"works on after a reconnect", false, func(w watched) {
			w.lis.cut(false)
			time.Sleep(time.Second)
			w.cancel()
		}},
		{"idles for 45 minutes", false, func(watched) { time.Sleep(45 * time.Minute) }},
		{"leaves a goroutine, idles 45 minutes", true, func(w watched) {
			w.startGoroutine()
			time.Sleep(45 * time.Minute)
		}},
		{"opens a stream that gRPC retries", false, watched.retried},
	} {
		inBubble(t, func(t *testing.T) {
			end := make(chan bool)
			defer close(end)
			use := func(lis *breakable) func(feedv1.FeedServiceClient) {
				return func(feed feedv1.FeedServiceClient) { tt.do(watched{T: t, lis: lis, feed: feed, end: end}) }
			}
			before := goleak.IgnoreCurrent()
			lis := newBreakable()
			srv := start(t, lis, sometimesDeaf{end: end}, grpc.MaxConcurrentStreams(1))
			var streams streams
			var attempts attempts
			conn := connect(t, client(t, target, lis, grpc.WithChainStreamInterceptor(streams.count), grpc.WithStatsHandler(&attempts)))
			counted, baseline := goroutines(), goleak.IgnoreCurrent()

			use(lis)(feedv1.NewFeedServiceClient(conn))
			time.Sleep(1100 * time.Millisecond) // off the seconds of gRPC's own timers
			synctest.Wait()
			counts := []int{
				goroutines() - counted,
				0, // when all is closed: below
				count(goleak.Find(baseline)),
				count(goleak.Find(append(transport(), before)...)),
				int(streams.begun.Load() - streams.ended.Load()),
				int(attempts.begun.Load() - attempts.ended.Load()),
			}
			conn.Close()
			srv.Stop()
			counts[1] = count(goleak.Find(before))
			table += fmt.Sprintf("%-39s", tt.what)
			for i, n := range counts {
				sign, mark := "%d", ""
				if i == 0 {
					sign = "%+d"
				}
				if n > 0 != tt.leak {
					mark = " ✗"
				}
				table += fmt.Sprintf("%-*s", []int{12, 13, 12, 13, 9, 0}[i], fmt.Sprintf(sign, n)+mark)
			}
			table = strings.TrimRight(table, " ") + "\n"

			lis = newBreakable()
			if left := leaks(lis, sometimesDeaf{end: end}, use(lis)); left != nil != tt.leak {
				t.Errorf("of a client that %s leaks finds %s", tt.what, summary(left))
			}
		})
	}
	lab.Golden(t, "detectors.txt", table)
	t.Logf("\n%s", table)
}

const target = "passthrough:///test"

// sometimesDeaf is server with a topic whose handler does not listen.
type sometimesDeaf struct {
	server
	end chan bool
}

func (s sometimesDeaf) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	if err := stream.Send(&feedv1.Event{}); err != nil {
		return err
	}
	if req.GetTopic() != "deaf" {
		return s.server.Watch(req, stream)
	}
	<-s.end
	return nil
}

// What transport ignores is all that there is without a stream, and it ends
// with the connection.
func TestTheTransportIsIgnoredAndEndsWithTheConnection(t *testing.T) {
	up := func(w watched) { connect(w.T, w.conn) }
	ping := grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Hour, PermitWithoutStream: true})
	for _, tt := range []struct {
		what string
		want int // goroutines beside those of a ClientConn and of Serve
		do   func(watched)
		opts []grpc.DialOption
	}{
		{"not connected", 0, func(watched) {}, nil},
		{"connected", 5, up, nil},
		{"connected, with keepalive", 6, up, []grpc.DialOption{ping}},
		{"waiting to connect again", 1, func(w watched) {
			up(w)
			w.lis.cut(true)
			time.Sleep(time.Second)
			w.conn.Connect()
		}, nil},
		{"shaking hands with somebody silent, each side", 4, func(w watched) {
			if _, err := w.lis.Dial(); err != nil {
				w.Fatal(err)
			}
			w.lis.mute = true
			w.conn.Connect()
			time.Sleep(time.Second)
		}, nil},
	} {
		inBubble(t, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			lis := newBreakable()
			srv := start(t, lis, server{})
			conn := client(t, target, lis, tt.opts...)
			tt.do(watched{T: t, lis: lis, conn: conn})
			all := goleak.Find(before)
			if n := count(all); n != 4+tt.want {
				t.Errorf("%s: there are %d goroutines, want %d: %s", tt.what, n, 4+tt.want, summary(all))
			}
			if found := goleak.Find(append(transport(), before)...); found != nil {
				t.Errorf("%s: transport does not ignore %s", tt.what, summary(found))
			}
			conn.Close()
			srv.Stop()
			if left := goleak.Find(before); left != nil {
				t.Errorf("%s, then all closed: there is left %s", tt.what, summary(left))
			}
			t.Logf("%s: %d goroutines: %s", tt.what, count(all), summary(all))
		})
	}
}

// A baseline belongs to a connection: one that is taken before it, or that
// stays when the connection does not, blames a client that left nothing.
func TestABaselineBelongsToOneConnection(t *testing.T) {
	for _, tt := range []struct {
		what string
		up   bool
		use  func(watched)
		want int
	}{
		{"taken before the connection is up", false, watched.cancel, 5},
		{"taken when it is up", true, watched.cancel, 0},
		{"after a reconnect", true, func(w watched) { w.lis.cut(false); time.Sleep(time.Second); w.cancel() }, 5},
		{"after 30 idle minutes", true, func(watched) { time.Sleep(30*time.Minute + time.Second) }, 2},
		{"after 30 idle minutes and a stream", true, func(w watched) { time.Sleep(30*time.Minute + time.Second); w.cancel() }, 7},
	} {
		inBubble(t, func(t *testing.T) {
			lis := newBreakable()
			start(t, lis, server{})
			conn := client(t, target, lis)
			if tt.up {
				connect(t, conn)
			}
			baseline := goleak.IgnoreCurrent()
			tt.use(watched{T: t, lis: lis, feed: feedv1.NewFeedServiceClient(conn)})
			found := goleak.Find(baseline)
			if n := count(found); n != tt.want {
				t.Errorf("%s a baseline blames %d goroutines, want %d: %s", tt.what, n, tt.want, summary(found))
			}
			t.Logf("%s: %d goroutines too many", tt.what, count(found))
		})
	}
}

// A retried opening has an attempt that begins in clientStream.retryLocked and
// that withRetry drops for another: it never ends.
func TestAStatsHandlerCountsAttempts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		lis := newBreakable()
		start(t, lis, server{}, grpc.MaxConcurrentStreams(1))
		var streams streams
		var attempts attempts
		conn := connect(t, client(t, target, lis, grpc.WithChainStreamInterceptor(streams.count), grpc.WithStatsHandler(&attempts)))
		watched{T: t, lis: lis, feed: feedv1.NewFeedServiceClient(conn)}.retried()
		time.Sleep(24 * time.Hour)
		got := []int64{streams.begun.Load(), streams.ended.Load(), attempts.begun.Load(), attempts.ended.Load()}
		if want := []int64{2, 2, 4, 3}; !slices.Equal(got, want) {
			t.Errorf("streams begun and ended, attempts begun and ended: %d, want %d", got, want)
		}
		t.Logf("streams: %d begun, %d ended; attempts: %d begun, %d ended", got[0], got[1], got[2], got[3])
	})
}

func TestAStreamThatCannotBeOpenedEndsOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		lis := newBreakable()
		lis.cut(true)
		var streams streams
		feed := feedv1.NewFeedServiceClient(client(t, target, lis, grpc.WithChainStreamInterceptor(streams.count)))
		_, err := takeFirst(t.Context(), feed, "alerts")
		if begun, ended := streams.begun.Load(), streams.ended.Load(); err == nil || begun != 1 || ended != 1 {
			t.Errorf("takeFirst returned %v, %d streams begun and %d ended, want an error, 1 and 1", err, begun, ended)
		}
		t.Log(err)
	})
}

// goleak looks 21 times and waits in between: options.go, retry. In a bubble
// the wait is virtual, to the microsecond.
func TestGoleakWaits431MillisecondsForWhatIsEnding(t *testing.T) {
	const wait = 431071 * time.Microsecond
	for _, tt := range []struct {
		needs time.Duration
		ends  bool
	}{{wait - time.Millisecond, true}, {wait + time.Millisecond, false}} {
		inBubble(t, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			go time.Sleep(tt.needs)
			began := time.Now()
			found := goleak.Find(before)
			if took := time.Since(began); (found == nil) != tt.ends || took > wait || !tt.ends && took != wait {
				t.Errorf("a goroutine ends after %v: after %v Find returned %v", tt.needs, took, found)
			}
			t.Logf("a goroutine ends after %v: after %v Find returned %d", tt.needs, time.Since(began), count(found))
			time.Sleep(time.Second)
		})
	}
}

func TestGoleakCannotTellWhoseAGoroutineIs(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		before := goleak.IgnoreCurrent()
		other := make(chan bool)
		go func() { <-other }() // the work of a test that runs at the same time
		var said complaints
		goleak.VerifyNone(&said, before)
		close(other)
		if len(said) != 1 || !strings.Contains(said[0], "TestGoleakCannotTellWhoseAGoroutineIs") {
			t.Errorf("VerifyNone said %q, want a complaint about the other test", said)
		}
	})
}

type complaints []string

func (c *complaints) Error(args ...any) { *c = append(*c, fmt.Sprint(args...)) }

func TestWaitForHandlersNeverReturnsFromADeafOne(t *testing.T) {
	for _, wait := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			end := make(chan bool)
			lis := bufconn.Listen(1 << 20)
			srv := start(t, lis, sometimesDeaf{end: end}, grpc.WaitForHandlers(wait))
			takeFirstAndCancel(t.Context(), feedv1.NewFeedServiceClient(client(t, target, lis)), "deaf")
			stopped := make(chan bool)
			go func() { srv.Stop(); close(stopped) }()
			waits := false
			select {
			case <-stopped:
			case <-time.After(24 * time.Hour):
				waits = true
			}
			if waits != wait {
				t.Errorf("WaitForHandlers(%v): Stop still waits after a day: %v, want %v", wait, waits, wait)
			}
			t.Logf("WaitForHandlers(%v): Stop still waits after a day: %v", wait, waits)
			close(end)
		})
	}
}

// No test lets gRPC look up bufnet: what comes back is the network's affair,
// and package net would keep a channel of the first bubble for all later ones.
func TestBufconnNeedsPassthrough(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		lis := bufconn.Listen(1 << 20)
		start(t, lis, server{})
		if got := client(t, "bufnet", lis).CanonicalTarget(); got != "dns:///bufnet" {
			t.Errorf("bufnet means %s, want dns:///bufnet", got)
		}
		conn := client(t, "passthrough:///bufnet", lis)
		if _, err := takeFirstAndCancel(t.Context(), feedv1.NewFeedServiceClient(conn), "alerts"); err != nil {
			t.Errorf("over %s takeFirstAndCancel returned %v", conn.CanonicalTarget(), err)
		}
	})
}

func TestBufconnHasNeitherLatencyNorReset(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		lis := bufconn.Listen(1 << 20)
		start(t, lis, server{})
		began := time.Now()
		takeFirstAndCancel(t.Context(), feedv1.NewFeedServiceClient(client(t, target, lis)), "alerts")
		if took := time.Since(began); took != 0 {
			t.Errorf("a connection, a stream and its end took %v, want no time at all", took)
		}
		lis = bufconn.Listen(1 << 20)
		go lis.Accept()
		conn, err := lis.Dial()
		if err != nil {
			t.Fatal(err)
		}
		if _, canReset := conn.(interface{ SetLinger(int) error }); canReset {
			t.Error("bufconn has SetLinger, which makes Close send a RST")
		}
	})
}

// What the panic leaves of a bubble stays until its process ends, and slows
// down each later look at all goroutines: so that process is another one.
func TestABubbleWithAnOpenConnectionPanics(t *testing.T) {
	const isChild = "OPEN_CONNECTION"
	if os.Getenv(isChild) != "" {
		synctest.Test(t, func(t *testing.T) {
			_, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Error(err)
			}
		})
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), isChild+"=1")
	out, err := cmd.CombinedOutput()
	if want := "panic: deadlock: main bubble goroutine has exited but blocked goroutines remain"; err == nil || !strings.Contains(string(out), want) {
		t.Errorf("the bubble ended with %v and\n%s\nwant %q", err, out, want)
	}
}

func TestABubbleRunsOnThroughAWaitWithoutALimit(t *testing.T) {
	const year = 365 * 24 * time.Hour
	began := time.Now()
	inBubble(t, func(t *testing.T) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), year) // without it, until go test gives up
		defer cancel()
		left := leaks(bufconn.Listen(1<<20), server{}, func(feed feedv1.FeedServiceClient) {
			stream, err := feed.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
			for err == nil {
				_, err = stream.Recv()
			}
			if took := time.Since(began); status.Code(err) != codes.DeadlineExceeded || took != year {
				t.Errorf("Recv returned %v after %v, want DeadlineExceeded after %v", err, took, year)
			}
		})
		if left != nil {
			t.Error(left)
		}
	})
	t.Logf("Recv waited for a year; that took %v", time.Since(began).Round(time.Millisecond))
}

// A lock, a socket or a channel that was made outside can be released from
// outside the bubble, so who waits for one does not count as waiting
// (testing/synctest, "durably blocked"), and no timer of the bubble fires.
func TestAWaitForALockStopsTheTime(t *testing.T) {
	var mu sync.Mutex
	mu.Lock()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	near, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	far, err := lis.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	inbox := make(chan string)
	for _, waits := range []struct {
		state         string // of the goroutine in a dump
		wait, release func()
	}{
		{"sync.Mutex.Lock", mu.Lock, mu.Unlock},
		{"IO wait", func() { near.Read(make([]byte, 1)) }, func() { far.Write([]byte("x")) }},
		{"chan receive", func() { <-inbox }, func() { inbox <- "x" }},
	} {
		go func() { // outside
			for seen := 0; seen < 20; { // dumps: time enough for the limit to pass, if it did
				if awaiting(waits.state) {
					seen++
				}
				runtime.Gosched()
			}
			waits.release()
		}()
		inBubble(t, func(t *testing.T) {
			limit, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			released := make(chan error)
			go func() {
				await(waits.wait)
				released <- limit.Err()
			}()
			if err := <-released; err != nil {
				t.Errorf("a goroutine was in %q, and the limit of a minute said %v, want time to stand still", waits.state, err)
			}
		})
	}
}

// await is there to be found in a dump of all goroutines.
//
//go:noinline
func await(wait func()) { wait() }

// awaiting returns whether a goroutine in await is in this state.
func awaiting(state string) bool {
	for goroutine := range strings.SplitSeq(stacks(), "\n\n") {
		if strings.Contains(goroutine, ".await(") {
			return strings.Contains(goroutine, " ["+state)
		}
	}
	return false
}
