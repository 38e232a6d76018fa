package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// init silences grpc's log: the GOAWAY that one test wants is no news.
func init() { grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard)) }

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// pulls serves the methods of pull on a link, whose server has FeedService alone.
func pulls(s puller) grpc.ServerOption {
	return grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		name, _ := grpc.MethodFromServerStream(stream)
		for _, m := range pull.Methods {
			if name == "/"+pull.ServiceName+"/"+m.MethodName {
				reply, err := m.Handler(s, stream.Context(), onlyMessage(stream), nil)
				if err != nil {
					return err
				}
				return stream.SendMsg(reply)
			}
		}
		return status.Error(codes.Unimplemented, name)
	})
}

// onlyMessage receives a message and the half-close behind it, as the server does
// for unary methods: or its end might overtake that, which costs a RST_STREAM.
func onlyMessage(stream grpc.ServerStream) func(any) error {
	return func(m any) error {
		if err := stream.RecvMsg(m); err != nil {
			return err
		}
		if err := stream.RecvMsg(new(feedv1.Event)); err != io.EOF {
			return fmt.Errorf("after the request: %v", err)
		}
		return nil
	}
}

// dial serves s on a link of its own and connects to it.
func dial(l *lab.Lab, s *server, opts ...grpc.DialOption) (*grpc.ClientConn, *lab.Link) {
	link := l.NewLink()
	link.Serve(s, append(serverOptions(), pulls(s))...)
	return link.Dial(opts...), link
}

// A bill is what went over a link since Mark.
type bill struct{ frames, bytes int }

func billed(link *lab.Link) (b bill) {
	for _, f := range link.Frames() {
		if f.Type != "" {
			b.frames, b.bytes = b.frames+1, b.bytes+9+f.Length // 9: a frame's own head
		}
	}
	return b
}

// ways hand in an event, and hear of one.
var ways = []struct {
	name string
	send func(ctx context.Context, client feedv1.FeedServiceClient, n int) error
}{
	{"unary call", publishEach},
	{"client stream of one", uploadEach},
	{"server stream of one", func(ctx context.Context, client feedv1.FeedServiceClient, n int) error {
		for range n {
			if err := watchOne(ctx, client); err != nil {
				return err
			}
		}
		return nil
	}},
	{"message on an open stream", ingestAll},
}

func watchOne(ctx context.Context, client feedv1.FeedServiceClient) error {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "green"})
	if err != nil {
		return err
	}
	if _, err = stream.Recv(); err == nil {
		if _, err = stream.Recv(); err == io.EOF {
			return nil
		}
	}
	return fmt.Errorf("the stream ended with %v", err)
}

// one is a server whose Watch sends one event and ends.
type one struct{ *server }

func (one) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	return stream.Send(&feedv1.Event{Id: "1"})
}

// each returns what one thing costs: do(n) does n of them, and whatever all share.
// A call before sends the names of headers, to which later ones only refer.
func each(l *lab.Lab, link *lab.Link, do func(n int) error) bill {
	l.Helper()
	var b [4]bill
	for i, n := range []int{1, 0, 1, 2} {
		link.Mark()
		if err := do(n); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Second) // until the end of an open stream has arrived, too
		b[i] = billed(link)
	}
	return bill{b[3].frames - b[2].frames, b[3].bytes - b[2].bytes}
}

// forget lets the topic begin anew.
func (s *server) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest = new(feedv1.Event)
}

// costs are what the rest of the chapter counts with.
type costs struct {
	send                                               []bill // as ways
	poll, pollNews, longPoll, longNews, event, beating bill
}

func count(t *testing.T) (c costs) {
	t.Helper()
	for _, way := range ways {
		lab.Run(t, func(l *lab.Lab) {
			client, link := l.Connect(one{newServer(hold)})
			c.send = append(c.send, each(l, link, func(n int) error { return way.send(l.Context(), client, n) }))
		})
	}
	asks := func(method string, news bool) (b bill) {
		lab.Run(t, func(l *lab.Lab) {
			s := newServer(hold)
			conn, link := dial(l, s)
			b = each(l, link, func(n int) error {
				for range n {
					ctx, cancel := context.WithTimeout(l.Context(), within)
					defer cancel()
					after := s.newest.GetCursor()
					if news {
						s.add("green")
					}
					if err := conn.Invoke(ctx, method, &feedv1.WatchRequest{AfterCursor: after}, new(feedv1.Event)); err != nil {
						return err
					}
				}
				return nil
			})
		})
		return b
	}
	c.poll, c.pollNews = asks("/feed.v1.Pull/Latest", false), asks("/feed.v1.Pull/Latest", true)
	c.longPoll, c.longNews = asks("/feed.v1.Pull/Next", false), asks("/feed.v1.Pull/Next", true)
	for _, beat := range []time.Duration{0, time.Second} {
		lab.Run(t, func(l *lab.Lab) {
			s := newServer(hold)
			s.beat = beat
			conn, link := dial(l, s)
			b := each(l, link, func(n int) error {
				ctx, cancel := context.WithCancel(l.Context())
				time.AfterFunc(time.Duration(n)*time.Second+500*time.Millisecond, cancel)
				for i := range n {
					if beat == 0 {
						time.AfterFunc(time.Duration(i)*time.Second+300*time.Millisecond, func() { s.add("green") })
					}
				}
				s.forget()
				if err := watch(ctx, conn, func(*feedv1.Event) {}); status.Code(err) != codes.Canceled {
					return err
				}
				return nil
			})
			if beat > 0 {
				c.beating = b
			} else {
				c.event = b
			}
		})
	}
	return c
}

func TestAStreamOfOneIsAUnaryCallOrAFrameMore(t *testing.T) {
	c := count(t)
	text := fmt.Sprintf("%-38s %6s %6s\n", "", "frames", "bytes")
	line := func(what string, b bill) { text += fmt.Sprintf("%-38s %6d %6d\n", what, b.frames, b.bytes) }
	for i, way := range ways {
		line(way.name, c.send[i])
	}
	line("poll without news", c.poll)
	line("poll with news", c.pollNews)
	line("long poll with news", c.longNews)
	line("event on an open stream", c.event)
	line("heartbeat on an open stream", c.beating)
	lab.Golden(t, "bytes.txt", text)
	call := c.send[0]
	for i, more := range []int{0, 1, 0} {
		if got := c.send[i].frames - call.frames; got != more {
			t.Errorf("a %s takes %d frames more than a unary call, want %d", ways[i].name, got, more)
		}
	}
	if open := c.send[3]; open.frames != 2 || 2*open.bytes > call.bytes {
		t.Errorf("a message and its answer on an open stream are %v, want 2 frames and half of %v at most", open, call)
	}
	t.Logf("\n%s", text)
}

// mallocs is how many objects this process has allocated.
func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// What is allocated is what the processor is busy with: it does not depend on
// what else runs, as times do.
func TestAnOpenStreamSavesWorkAStreamOfOneDoesNotOverTCP(t *testing.T) {
	allocs := map[string]float64{}
	lab.OverTCP(t, func(l *lab.Lab) {
		k, err := connect(newServer(hold))
		if err != nil {
			l.Fatal(err)
		}
		defer k.end()
		const n = 100
		for _, way := range []int{0, 1, 3} {
			ctx, client := l.Context(), feedv1.NewFeedServiceClient(k.conn)
			if err := ways[way].send(ctx, client, n); err != nil {
				l.Fatal(err)
			}
			before := mallocs()
			if err := ways[way].send(ctx, client, n); err != nil {
				l.Fatal(err)
			}
			allocs[ways[way].name] = float64(mallocs()-before) / n
		}
	})
	call, one, open := allocs["unary call"], allocs["client stream of one"], allocs["message on an open stream"]
	if open > call/2 || one < 0.75*call || one > 1.25*call {
		t.Errorf("allocations: a unary call %.0f, a stream of one %.0f, a message on an open stream %.0f; want as many, give or take a quarter, and half at most", call, one, open)
	}
	t.Logf("allocations, both ends: a unary call %.0f, a stream of one %.0f, a message on an open stream and its answer %.0f", call, one, open)
}

// The benchmark writes cpu.txt. This test reads the text alone: that the README
// does not say what its table does not.
func TestTheRecordedCostsBearTheRatiosOut(t *testing.T) {
	text, err := os.ReadFile("cpu.txt")
	if err != nil {
		t.Fatal(err)
	}
	costs := map[string]float64{}
	for _, m := range regexp.MustCompile(`(?m)^(\S.*?) {2,}(\d+)`).FindAllStringSubmatch(string(text), -1) {
		costs[m[1]], _ = strconv.ParseFloat(m[2], 64)
	}
	for _, r := range []struct {
		says     string
		is       float64
		from, to float64
	}{
		{"a stream of one takes as long as a call, give or take a quarter", costs["client stream of one"] / costs["unary call"], 0.75, 1.25},
		{"a message on an open stream takes less than half of a call", costs["message on an open stream"] / costs["unary call"], 0, 0.5},
		{"a stream pays below about 5 events a poll", costs["poll without news"] / costs["event on an open stream"], 4.5, 5.5},
		{"10,000 clients that poll each 10 s take 5 % of a processor", costs["poll without news"] * 10_000 / 10 / 1e6 * 100, 4.5, 5.5},
	} {
		if !(r.is > r.from && r.is < r.to) {
			t.Errorf("README.md says that %s; by cpu.txt it is %.2f, not %v to %v", r.says, r.is, r.from, r.to)
		}
		t.Logf("%s: %.2f", r.says, r.is)
	}
}

// heard is what a hearer of some events cost.
type heard struct {
	bill
	events, calls int
	mean, most    time.Duration // late
}

// beats is how often a watched topic has a heartbeat where it has some.
const beats = 10 * time.Second

// hears lets a hearer hear of n events, one in each gap, for n gaps. The place
// in its gap is another for each, so that no poll is in step.
func hears(t *testing.T, hear hearer, n int, gap, beat time.Duration) (h heard) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		s := newServer(hold)
		s.beat = beat
		conn, link := dial(l, s)
		ctx, cancel := context.WithCancel(l.Context())
		// The first call sends the names of headers, which is not counted, as the opening of a stream is not.
		first, done := context.WithTimeout(ctx, within)
		defer done()
		if err := conn.Invoke(first, "/feed.v1.Pull/Latest", new(feedv1.WatchRequest), new(feedv1.Event)); err != nil {
			l.Fatal(err)
		}
		start, ended := time.Now().Add(97*time.Millisecond), make(chan error, 1)
		go func() {
			ended <- hear(ctx, conn, func(ev *feedv1.Event) {
				came, _ := time.ParseDuration(ev.GetBody())
				late := time.Since(start) - came
				h.events, h.mean, h.most = h.events+1, h.mean+late, max(h.most, late)
			})
		}()
		time.Sleep(time.Until(start))
		link.Mark()
		for i := range n {
			place := min(gap, time.Second) * time.Duration(50+382*i%900) / 1000
			time.Sleep(time.Until(start.Add(time.Duration(i)*gap + place + 311*time.Microsecond)))
			s.add(fmt.Sprintf("%.6fs", time.Since(start).Seconds()))
		}
		time.Sleep(time.Until(start.Add(time.Duration(n)*gap + time.Millisecond)))
		h.bill = billed(link)
		h.calls = len(l.RPCs()) - 1
		cancel()
		if err := <-ended; status.Code(err) != codes.Canceled {
			l.Errorf("the hearer ended with %v", err)
		}
		h.mean /= time.Duration(max(h.events, 1))
	}, lab.Lasts(24*time.Hour))
	return h
}

// hearers are compared by TestFromWhichRateAStreamPays.
var hearers = []struct {
	name string
	hear hearer
	beat time.Duration
}{
	{"polled each 1s", pollEach(time.Second), 0},
	{"long polled", longPoll, 0},
	{"watched", watch, 0},
	{"with heartbeats", watch, beats},
}

func TestFromWhichRateAStreamPays(t *testing.T) {
	c := count(t)
	text := fmt.Sprintf("%-14s", "bytes a minute")
	for _, way := range hearers {
		text += fmt.Sprintf(" %20s", way.name)
	}
	text += "\n"
	var watchPays []time.Duration
	for _, row := range []struct {
		gap time.Duration
		n   int
	}{{2 * time.Millisecond, 1000}, {100 * time.Millisecond, 100}, {250 * time.Millisecond, 40}, {400 * time.Millisecond, 25}, {time.Second, 20}, {10 * time.Minute, 1}} {
		text += fmt.Sprintf("an event/%-5s", strings.TrimSuffix(row.gap.String(), "0s"))
		var bytes []float64
		for _, way := range hearers {
			h := hears(t, way.hear, row.n, row.gap, way.beat)
			bytes = append(bytes, float64(h.bytes)/(time.Duration(row.n)*row.gap).Minutes())
			if skips := h.events < row.n/2; way.name == "long polled" && skips != (row.gap < lab.Latency) {
				t.Errorf("an event each %v: long polls heard %d of %d events", row.gap, h.events, row.n)
			}
			text += fmt.Sprintf(" %20.0f", bytes[len(bytes)-1])
		}
		text += "\n"
		// Long polls ask each round trip, if there is so much news.
		few := float64(2*lab.Latency)/float64(row.gap) < float64(c.longNews.bytes)/float64(c.event.bytes)
		if few != (bytes[2] < bytes[1]) {
			t.Errorf("an event each %v: long polls take %.0f bytes, a stream %.0f, want the stream to take less: %v", row.gap, bytes[1], bytes[2], few)
		}
		if third := bytes[2] / bytes[1]; row.gap == time.Second && (third < 0.3 || third > 0.37) {
			t.Errorf("an event each second: a stream takes %.2f of what long polls take, want a third", third)
		}
		if bytes[2] < bytes[0] {
			watchPays = append(watchPays, row.gap)
		}
	}
	lab.Golden(t, "rates.txt", text)
	events := float64(c.pollNews.bytes) / float64(c.event.bytes)
	if len(watchPays) != 3 || watchPays[0] != 400*time.Millisecond || math.Round(10*events) != 34 {
		t.Errorf("by the costs a stream pays below %.1f events a poll, and it did for an event each %v, want 3.4 and 400ms or more", events, watchPays)
	}
	// A silent topic is watched with heartbeats, or polled more and more rarely.
	silent := func(hear hearer, beat time.Duration) int { return hears(t, hear, 1, time.Hour, beat).bytes }
	beating, often, rarely := silent(watch, beats), silent(pollEach(40*time.Second), 0), silent(pollEach(60*time.Second), 0)
	equal := beats * time.Duration(c.poll.bytes) / time.Duration(c.beating.bytes)
	if often < beating || rarely > beating || equal.Round(time.Second) != 49*time.Second {
		t.Errorf("an hour with heartbeats takes %d bytes, polled each 40s %d, each 60s %d; by the costs they are equal at %v", beating, often, rarely, equal)
	}
	t.Logf("by bytes a stream pays below %.1f events a poll. With a heartbeat each %v, a silent one pays against polls each %v or oftener\n%s", events, beats, equal.Round(time.Second), text)
}

// An event that comes between two long polls waits for the next one: the answer
// is on the way for a latency, and the question for another.
func TestNewsBetweenTwoLongPollsComesARoundTripLater(t *testing.T) {
	const rtt, fast = 2 * lab.Latency, 7 * time.Millisecond
	for _, tt := range []struct {
		name               string
		hear               hearer
		gap                time.Duration
		n, events, calls   int
		mean, atMost, less time.Duration
	}{
		{"watched", watch, 5 * time.Second, 30, 30, 1, lab.Latency, lab.Latency, 0},
		{"watched", watch, fast, 300, 299, 1, lab.Latency, lab.Latency, 0},
		{"long polled", longPoll, 5 * time.Second, 30, 30, 31, lab.Latency, lab.Latency, 0},
		{"long polled", longPoll, fast, 300, int(300 * fast / rtt), int(300*fast/rtt) + 1, 9 * time.Millisecond, lab.Latency + rtt, time.Millisecond},
		{"polled each 1s", pollEach(time.Second), 5 * time.Second, 30, 30, 150, time.Second / 2, time.Second + rtt, 100 * time.Millisecond},
		{"polled each 1s", pollEach(time.Second), 100 * time.Millisecond, 300, 30, 30, 50 * time.Millisecond, time.Second + rtt, 100 * time.Millisecond},
	} {
		h := hears(t, tt.hear, tt.n, tt.gap, 0)
		if h.events != tt.events || h.calls != tt.calls || (h.mean-tt.mean).Abs() > tt.less || h.most > tt.atMost {
			t.Errorf("%s, an event each %v: %d events in %d calls, %v late, %v at most; want %d in %d, %v, %v", tt.name, tt.gap, h.events, h.calls, h.mean, h.most, tt.events, tt.calls, tt.mean, tt.atMost)
		}
		t.Logf("%s, an event each %v: %d of %d events in %d calls, %v late, %v at most", tt.name, tt.gap, h.events, tt.n, h.calls, h.mean, h.most)
	}
}

// goroutines counts the goroutines that have a function on their stack whose
// name contains fn.
func goroutines(fn string) (n int) {
	var profile strings.Builder
	pprof.Lookup("goroutine").WriteTo(&profile, 1) // equal stacks are one entry
	for entry := range strings.SplitSeq(profile.String(), "\n\n") {
		if strings.Contains(entry, fn) {
			head, _, _ := strings.Cut(entry, " @ ")
			count, _ := strconv.Atoi(head[strings.LastIndex(head, "\n")+1:])
			n += count
		}
	}
	return n
}

// newClientStreamWithParams (stream.go) starts a goroutine that waits for the
// end of the context, unless the call is unary.
func TestALongPollHoldsAHandlerAsAStreamDoes(t *testing.T) {
	const n = 100
	for _, way := range []struct {
		name     string
		hear     hearer
		watchers int
	}{{"long polls", longPoll, 0}, {"streams", watch, n}} {
		lab.Run(t, func(l *lab.Lab) {
			conn, link := dial(l, newServer(hold))
			ctx, cancel := context.WithCancel(l.Context())
			var all sync.WaitGroup
			for range n {
				all.Go(func() { way.hear(ctx, conn, func(*feedv1.Event) {}) })
			}
			time.Sleep(time.Second)
			handlers, watchers := goroutines("(*Server).handleStream"), goroutines("newClientStreamWithParams.func")
			open := billed(link).frames
			cancel()
			all.Wait()
			if handlers != n || watchers != way.watchers || open < 2*n {
				l.Errorf("%d %s that wait: %d handlers, %d goroutines that wait for a context, %d frames; want %d and %d", n, way.name, handlers, watchers, open, n, way.watchers)
			}
			l.Logf("%d %s that wait: %d handlers, and %d goroutines in the client beside the callers", n, way.name, handlers, watchers)
		})
	}
}

// A job takes an hour. Its one event needs no stream: the call may take as long.
func TestADelayNeedsALongDeadlineAndNoStream(t *testing.T) {
	for _, tt := range []struct {
		what         string
		hold, within time.Duration
		loses        bool // the network, after half an hour
		want         codes.Code
		took         time.Duration
	}{
		{"the deadline is long", 2 * time.Hour, 2 * time.Hour, false, codes.OK, time.Hour + lab.Latency},
		{"the deadline is that of a quick call", 2 * time.Hour, 5 * time.Second, false, codes.DeadlineExceeded, 5 * time.Second},
		{"the network dies, the deadline is long", 2 * time.Hour, 2 * time.Hour, true, codes.DeadlineExceeded, 2 * time.Hour},
		{"the network dies, the server holds a call for 10s", hold, within, true, codes.DeadlineExceeded, 30*time.Minute + 22*time.Second},
	} {
		lab.Run(t, func(l *lab.Lab) {
			s := newServer(tt.hold)
			conn, link := dial(l, s)
			start := time.Now()
			time.AfterFunc(time.Hour, func() { s.add("done") })
			if tt.loses {
				time.AfterFunc(30*time.Minute, link.Blackhole)
			}
			ev, err := new(feedv1.Event), error(nil)
			for err == nil && ev.GetCursor() == 0 {
				ctx, cancel := context.WithTimeout(l.Context(), tt.within)
				err = conn.Invoke(ctx, "/feed.v1.Pull/Next", &feedv1.WatchRequest{}, ev)
				cancel()
			}
			if took := time.Since(start); status.Code(err) != tt.want || took.Round(time.Second) != tt.took.Round(time.Second) {
				l.Errorf("%s: %v after %v, want %v after %v", tt.what, err, took, tt.want, tt.took)
			}
			l.Logf("%s: %v after %v, %d frames", tt.what, status.Code(err), time.Since(start), billed(link).frames)
		}, lab.Lasts(3*time.Hour))
	}
}

// fails is a puller that fails at first.
type fails struct {
	puller
	calls, times atomic.Int32
}

func (f *fails) Next(context.Context, *feedv1.WatchRequest) (*feedv1.Event, error) {
	if f.calls.Add(1) <= f.times.Load() {
		return nil, status.Error(codes.Unavailable, "restarting")
	}
	return &feedv1.Event{Cursor: 1}, nil
}

// restarts is a topic whose handler fails when it has sent its header.
type restarts struct {
	feedv1.UnimplementedFeedServiceServer
	calls atomic.Int32
}

func (r *restarts) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	r.calls.Add(1)
	stream.SendHeader(nil)
	return status.Error(codes.Unavailable, "restarting")
}

// A retry policy works until the header has come (isRetryable and
// commitAttempt in stream.go), which for an open stream is at its beginning.
func TestARetryRepeatsACallAndNoOpenStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		next, topic := new(fails), new(restarts)
		link := l.NewLink()
		link.Serve(topic, append(serverOptions(), pulls(next))...)
		policy := strings.Replace(dialConfig, `"service": "feed.v1.Pull"`, ``, 1) // for all services
		conn := link.Dial(append(dialOptions(), grpc.WithDefaultServiceConfig(policy))...)
		for _, times := range []int32{3, 4} {
			next.calls.Store(0)
			next.times.Store(times)
			ctx, cancel := context.WithTimeout(l.Context(), within)
			err := conn.Invoke(ctx, "/feed.v1.Pull/Next", &feedv1.WatchRequest{}, new(feedv1.Event))
			cancel()
			if calls := next.calls.Load(); calls != 4 || (err == nil) != (times == 3) {
				l.Errorf("a server that fails %d times was called %d times, and the caller got %v", times, calls, err)
			}
			l.Logf("a server failed %d times: %d attempts of one call, error %v", times, next.calls.Load(), err)
		}
		err := watch(l.Context(), conn, func(*feedv1.Event) {})
		if calls := topic.calls.Load(); calls != 1 || status.Code(err) != codes.Unavailable {
			l.Errorf("a stream that failed after its header was opened %d times and ended with %v, want once and Unavailable", calls, err)
		}
		l.Logf("a stream failed after its header: %d attempt, %v", topic.calls.Load(), err)
	})
}

func TestTheOptionsEndADeadConnectionAndKeepALiveOne(t *testing.T) {
	ends := func(dies time.Duration, opts ...grpc.ServerOption) (took time.Duration) {
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			link.Serve(newServer(hold), opts...)
			conn := link.Dial(dialOptions()...)
			defer time.AfterFunc(dies, link.Blackhole).Stop()
			start := time.Now()
			err := watch(l.Context(), conn, func(*feedv1.Event) {})
			took = time.Since(start)
			if status.Code(err) != codes.Unavailable {
				l.Errorf("the stream ended with %v, want Unavailable", err)
			}
			link.Heal() // or the handler learns of it after two hours: the server sends no pings
		}, lab.Lasts(3*time.Hour))
		return took
	}
	var most time.Duration
	for after := range 10 { // seconds: how long after a ping the network dies
		dies := time.Hour + time.Duration(after)*time.Second
		took := ends(dies, serverOptions()...) - dies
		if most = max(most, took); took < 0 {
			t.Errorf("a live connection ended %v before the network died", -took)
		}
	}
	if most < 14*time.Second || most > 15*time.Second {
		t.Errorf("a dead connection ended within %v, want 15s", most)
	}
	live := ends(2 * time.Hour).Round(time.Second)
	if live != 41*time.Second {
		t.Errorf("without the server's option a live connection ended after %v, want 41s", live)
	}
	t.Logf("a dead connection ended within %v, and a live one, without the server's option, after %v", most, live)
}

// A proxy of HTTP/2 has a connection on each side, and answers the pings of
// either. It ends what was silent for too long.
type proxy struct {
	feedv1.UnimplementedFeedServiceServer
	conn *grpc.ClientConn
	idle time.Duration
}

func (p proxy) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	up, err := feedv1.NewFeedServiceClient(p.conn).Watch(ctx, req)
	silence := time.AfterFunc(p.idle, cancel)
	defer silence.Stop()
	for err == nil {
		var ev *feedv1.Event
		if ev, err = up.Recv(); err == nil {
			silence.Reset(p.idle)
			err = stream.Send(ev)
		}
	}
	return status.Error(codes.Unavailable, "stream idle timeout")
}

func (p proxy) Latest(ctx context.Context, req *feedv1.WatchRequest) (*feedv1.Event, error) {
	return p.Next(ctx, req)
}

func (p proxy) Next(ctx context.Context, req *feedv1.WatchRequest) (*feedv1.Event, error) {
	ctx, cancel := context.WithTimeout(ctx, p.idle)
	defer cancel()
	ev := new(feedv1.Event)
	if err := p.conn.Invoke(ctx, "/feed.v1.Pull/Next", req, ev); err != nil {
		return nil, status.Error(codes.Unavailable, "stream idle timeout")
	}
	return ev, nil
}

func TestAPingDoesNotPassAProxy(t *testing.T) {
	for _, tt := range []struct {
		what  string
		hear  hearer
		hold  time.Duration
		beat  time.Duration
		idle  time.Duration
		dies  bool // the network behind the proxy, after 6 minutes
		heard bool // of an event after 12 minutes
		ended time.Duration
	}{
		{"watched", watch, hold, 0, 5 * time.Minute, false, false, 5 * time.Minute},
		{"watched with heartbeats each 30s", watch, hold, 30 * time.Second, 5 * time.Minute, false, true, 0},
		{"long polled", longPoll, hold, 0, 5 * time.Minute, false, true, 0},
		{"one call, held for 10m", func(ctx context.Context, conn grpc.ClientConnInterface, _ func(*feedv1.Event)) error {
			return conn.Invoke(ctx, "/feed.v1.Pull/Next", new(feedv1.WatchRequest), new(feedv1.Event))
		}, 10 * time.Minute, 0, 5 * time.Minute, false, false, 5 * time.Minute},
		{"watched, no timeout, the backend lost after 6m", watch, hold, 0, 24 * time.Hour, true, false, 0},
	} {
		lab.Run(t, func(l *lab.Lab) {
			s := newServer(tt.hold)
			s.beat = tt.beat
			back, behind := dial(l, s)
			p := proxy{conn: back, idle: tt.idle}
			front := l.NewLink()
			front.Serve(p, append(serverOptions(), pulls(p))...)
			ctx, cancel := context.WithTimeout(l.Context(), 13*time.Minute)
			defer cancel()
			time.AfterFunc(12*time.Minute, func() { s.add("at last") })
			if tt.dies {
				time.AfterFunc(6*time.Minute, behind.Blackhole)
			}
			start, events := time.Now(), 0
			err := tt.hear(ctx, front.Dial(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second})), func(*feedv1.Event) { events++ })
			took := time.Since(start).Round(time.Second)
			pings := [2]int{}
			for i, link := range []*lab.Link{front, behind} {
				for _, f := range link.Frames() {
					if f.Type == "PING" && f.From == lab.Client {
						pings[i]++
					}
				}
			}
			want := codes.DeadlineExceeded // of the test
			if tt.ended > 0 {
				want = codes.Unavailable
			}
			if status.Code(err) != want || tt.ended > 0 && took != tt.ended || events > 0 != tt.heard || pings[0] == 0 || pings[1] != 0 {
				l.Errorf("%s: %d events heard, ended after %v with %v, %d pings on one side and %d on the other", tt.what, events, took, err, pings[0], pings[1])
			}
			l.Logf("%s: %d events heard, ended after %v with %v; %d pings between client and proxy, %d behind it", tt.what, events, took, status.Code(err), pings[0], pings[1])
		}, lab.Lasts(2*time.Hour))
	}
}

// backend answers with its name.
type backend struct {
	feedv1.UnimplementedFeedServiceServer
	name string
}

func (b backend) Publish(context.Context, *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	return &feedv1.PublishResponse{Id: b.name}, nil
}

func (b backend) Ingest(stream ingestServer) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
		if err := stream.Send(&feedv1.Ack{Id: b.name}); err != nil {
			return err
		}
	}
}

// A picker is asked once for each RPC (pickerWrapper.pick, by newAttempt in
// stream.go), and for a stream that is at its opening.
func TestAStreamStaysWithItsServer(t *testing.T) {
	for _, policy := range []string{"pick_first", "round_robin"} {
		lab.Run(t, func(l *lab.Lab) {
			lis := map[string]*bufconn.Listener{}
			var addrs []resolver.Address
			for _, name := range []string{"a", "b", "c"} {
				lis[name] = bufconn.Listen(1 << 16)
				srv := grpc.NewServer()
				feedv1.RegisterFeedServiceServer(srv, backend{name: name})
				go srv.Serve(lis[name])
				defer srv.Stop()
				addrs = append(addrs, resolver.Address{Addr: name})
			}
			names := manual.NewBuilderWithScheme("names")
			names.InitialState(resolver.State{Addresses: addrs[:2]})
			conn, err := grpc.NewClient("names:///feed", grpc.WithResolvers(names),
				grpc.WithDefaultServiceConfig(strings.Replace(dialConfig, "round_robin", policy, 1)),
				grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return lis[addr].DialContext(ctx) }))
			if err != nil {
				l.Fatal(err)
			}
			defer conn.Close()
			conn.Connect()
			time.Sleep(time.Second)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			client := feedv1.NewFeedServiceClient(conn)
			var streams []grpc.BidiStreamingClient[feedv1.Event, feedv1.Ack]
			open := func(n int) {
				for range n {
					stream, err := client.Ingest(ctx)
					if err != nil {
						l.Fatal(err)
					}
					streams = append(streams, stream)
				}
			}
			counts := func() (messages, calls map[string]int) {
				messages, calls = map[string]int{}, map[string]int{}
				for range 30 {
					for _, stream := range streams {
						stream.Send(&feedv1.Event{})
						ack, err := stream.Recv()
						if err != nil {
							l.Fatal(err)
						}
						messages[ack.GetId()]++
					}
					reply, err := client.Publish(ctx, &feedv1.PublishRequest{})
					if err != nil {
						l.Fatal(err)
					}
					calls[reply.GetId()]++
				}
				return messages, calls
			}
			open(6)
			m1, c1 := counts()
			names.UpdateState(resolver.State{Addresses: addrs})
			time.Sleep(time.Second)
			m2, c2 := counts()
			open(3)
			m3, _ := counts()
			got := fmt.Sprint(m1, c1, m2, c2, m3)
			want := "map[a:180] map[a:30] map[a:180] map[a:30] map[a:270]"
			if policy == "round_robin" {
				want = "map[a:90 b:90] map[a:15 b:15] map[a:90 b:90] map[a:10 b:10 c:10] map[a:120 b:120 c:30]"
			}
			if got != want {
				l.Errorf("%s: %s, want %s", policy, got, want)
			}
			l.Logf("%s: 30 messages on each of 6 streams %v, 30 calls %v; with a third server %v and %v; with 3 streams more %v", policy, m1, c1, m2, c2, m3)
		})
	}
}

// Each message is compressed alone (compress in rpc_util.go).
func TestEachMessageIsCompressedAlone(t *testing.T) {
	const n = 100
	line := strings.Repeat("the build of main is green ", 4)
	sizes := map[string]int{}
	for _, tt := range []struct {
		what   string
		bodies []string
		opts   []grpc.CallOption
	}{
		{"tiny, plain", []string{"green"}, nil},
		{"tiny, gzip", []string{"green"}, []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
		{"100, plain", slices.Repeat([]string{line}, n), nil},
		{"100, gzip", slices.Repeat([]string{line}, n), []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
		{"one of 100, gzip", []string{strings.Repeat(line, n)}, []grpc.CallOption{grpc.UseCompressor(gzip.Name)}},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, link := l.Connect(newServer(hold))
			stream, err := client.UploadEvents(l.Context(), tt.opts...)
			if err != nil {
				l.Fatal(err)
			}
			for _, body := range tt.bodies {
				stream.Send(&feedv1.Event{Body: body})
			}
			if _, err := stream.CloseAndRecv(); err != nil {
				l.Fatal(err)
			}
			for _, f := range link.Frames() {
				if f.Type == "DATA" && f.From == lab.Client {
					sizes[tt.what] += f.Length
				}
			}
		})
	}
	if tiny := sizes["tiny, gzip"]; tiny*10 < 25*sizes["tiny, plain"] || tiny*10 > 35*sizes["tiny, plain"] {
		t.Errorf("a tiny message takes %d B, with gzip %d, want three times as much", sizes["tiny, plain"], tiny)
	}
	if alone, together, plain := sizes["100, gzip"], sizes["one of 100, gzip"], sizes["100, plain"]; 10*alone < 4*plain || 10*alone > 6*plain || 100*together > plain {
		t.Errorf("100 lines take %d B as they are, %d as compressed messages, %d in one message, want half, and 1 %% at most in one", plain, alone, together)
	}
	t.Logf("%v", sizes)
}

// unheard is a compressor of which the server has not heard. The one way to use it
// without telling the server, which shares this process, is the old option.
type unheard struct{}

func (unheard) Do(w io.Writer, p []byte) error { _, err := w.Write(p); return err }
func (unheard) Type() string                   { return "unheard" }

func TestAnUnknownCompressorIsSeenOnRecv(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(newServer(hold))
		//lint:ignore SA1019 see unheard
		client := feedv1.NewFeedServiceClient(link.Dial(grpc.WithCompressor(unheard{})))
		stream, err := client.Ingest(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		sent := stream.Send(&feedv1.Event{})
		_, err = stream.Recv()
		if sent != nil || status.Code(err) != codes.Unimplemented {
			l.Errorf("Send returned %v and Recv %v, want nil and Unimplemented", sent, err)
		}
		_, unheardOf := client.Publish(l.Context(), new(feedv1.PublishRequest), grpc.UseCompressor("mine"))
		if status.Code(unheardOf) != codes.Internal {
			l.Errorf("a compressor that the client has not: %v, want Internal", unheardOf)
		}
		l.Logf("a compressor that the server has not: Send %v, Recv %v; one that the client has not: %v", sent, err, unheardOf)
	})
}

func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, link := l.Connect(newServer(hold))
		if _, err := client.Publish(l.Context(), &feedv1.PublishRequest{Body: "green"}); err != nil {
			l.Fatal(err)
		}
		text := link.Ladder()
		link.Mark()
		stream, err := client.UploadEvents(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		stream.Send(&feedv1.Event{Body: "green"})
		time.Sleep(time.Millisecond)
		stream.CloseAndRecv()
		_, ladder, _ := strings.Cut(link.Ladder(), "\n")
		lab.Golden(t, "wire.txt", text+"\n"+ladder)
	})
}
