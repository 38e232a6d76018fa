package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// idle is the limit of all tests.
const idle = 30 * time.Second

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// A feed is a server whose handlers are functions.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	watch  func(watchServer) error
	upload func(uploadServer) error
}

func (f feed) Watch(_ *feedv1.WatchRequest, stream watchServer) error { return f.watch(stream) }
func (f feed) UploadEvents(stream uploadServer) error                 { return f.upload(stream) }

// topic is a Watch that sends an event after each of the gaps, and is then
// silent for ever.
func topic(gaps ...time.Duration) feed {
	return feed{watch: func(stream watchServer) error {
		if err := send(stream, gaps...); err != nil {
			return err
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	}}
}

func send(stream watchServer, gaps ...time.Duration) error {
	for i, gap := range gaps {
		pause(stream.Context(), gap)
		if err := stream.Send(&feedv1.Event{Id: fmt.Sprint(i + 1)}); err != nil {
			return err
		}
	}
	return nil
}

// An outcome is what a watcher made of a topic.
type outcome struct {
	events int
	last   time.Time // when the last of them came
	took   time.Duration
	err    error
}

// try runs a watcher that takes some time to handle each event.
func try(ctx context.Context, client feedv1.FeedServiceClient, watch watcher, takes time.Duration) (o outcome) {
	start := time.Now()
	o.last = start
	o.err = watch(ctx, client, "deploys", idle, func(*feedv1.Event) {
		o.events++
		o.last = time.Now()
		time.Sleep(takes)
	})
	o.took = time.Since(start)
	return o
}

// says is an error in one word.
func says(err error) string {
	if errors.Is(err, ErrIdle) {
		return "ErrIdle"
	}
	return status.Code(err).String()
}

// The recordings that the README shows: a client that ends a silent topic, and
// a handler that ends a silent upload.
func TestTheRecordingIsFresh(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(feed{watch: func(stream watchServer) error {
			err := topic(time.Millisecond).watch(stream)
			link.Note(lab.Server, "the handler returns %v", err)
			return err
		}, upload: func(stream uploadServer) error {
			err := uploader(nothing).UploadEvents(stream)
			link.Note(lab.Server, "the handler returns %v", status.Code(err))
			return err
		}})
		client := feedv1.NewFeedServiceClient(link.Dial())
		err := watch(l.Context(), client, "deploys", idle, nothing)
		link.Note(lab.Client, "watch returns %q", err)
		time.Sleep(time.Second)
		silent := link.Ladder()

		link.Mark()
		stream, cancel := openUpload(l, client)
		defer cancel()
		stream.Send(&feedv1.Event{Id: "1"})
		err = stream.RecvMsg(new(feedv1.UploadResult))
		link.Note(lab.Client, "RecvMsg returns %v, Send returns %v", status.Code(err), stream.Send(&feedv1.Event{Id: "2"}))
		time.Sleep(time.Second)
		_, upload, _ := strings.Cut(link.Ladder(), "\n") // without its heading
		lab.Golden(t, "wire.txt", silent+"\n"+upload)
	})
}

func nothing(*feedv1.Event) {}

// Events that come a second before the limit, for an hour.
func TestTheStreamEndsALimitAfterItsLastEvent(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(topic(slices.Repeat([]time.Duration{idle - time.Second}, 120)...))
		o := try(l.Context(), client, watch, 0)
		if late := time.Since(o.last); o.events != 120 || late != idle || !errors.Is(o.err, ErrIdle) {
			l.Errorf("watch had %d events, returned %v %v after the last, want 120, ErrIdle and 30s", o.events, o.err, late)
		}
		l.Logf("%d events in %v, ended %v after the last: %v", o.events, o.took-idle, time.Since(o.last), o.err)
	}, lab.Lasts(2*time.Hour))
}

// No event: the header is none, and waiting for the stream counts. A call that
// has no connection gets Unavailable when the dial fails, 20 s after it began
// (minConnectTimeout in clientconn.go).
func TestTheWaitForTheFirstEventBeginsWithTheCall(t *testing.T) {
	late := feed{watch: func(stream watchServer) error {
		pause(stream.Context(), 20*time.Second)
		stream.SendHeader(metadata.Pairs("a", "b"))
		return topic().watch(stream)
	}}
	type client = feedv1.FeedServiceClient
	for _, tt := range []struct {
		what   string
		feed   feed
		before func(context.Context, client, *lab.Link)
		want   string
	}{
		{"a silent topic", topic(), func(context.Context, client, *lab.Link) {}, "ErrIdle after 30s"},
		{"a topic with a header after 20s", late, func(context.Context, client, *lab.Link) {}, "ErrIdle after 30s"},
		{"a connection without a place for a stream", topic(), func(ctx context.Context, c client, _ *lab.Link) {
			c.Watch(ctx, &feedv1.WatchRequest{})
		}, "ErrIdle after 30s"},
		{"a connection whose network is dead", topic(), func(_ context.Context, _ client, link *lab.Link) {
			link.Blackhole()
		}, "ErrIdle after 30s"},
		{"no connection, and a dead network", topic(), func(_ context.Context, _ client, link *lab.Link) {
			link.Cut()
			time.Sleep(time.Second)
			link.Blackhole()
		}, "Unavailable after 20s"},
	} {
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			link.Serve(tt.feed, grpc.MaxConcurrentStreams(1))
			c := feedv1.NewFeedServiceClient(link.Dial())
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			tt.before(ctx, c, link)
			o := try(ctx, c, watch, 0)
			link.Heal()
			if got := fmt.Sprintf("%s after %v", says(o.err), o.took); o.events != 0 || got != tt.want {
				l.Errorf("%s: watch had %d events, then %s, want 0 and %s", tt.what, o.events, got, tt.want)
			}
			l.Logf("%s: %v after %v", tt.what, o.err, o.took)
		})
	}
}

// A message of 40 kB needs 40 s on a link of 1 kB a second. Recv returns a whole
// message or none.
func TestAPartOfAMessageIsNoEvent(t *testing.T) {
	for _, limit := range []time.Duration{idle, 2 * idle} {
		lab.Run(t, func(l *lab.Lab) {
			start := time.Now()
			var came []time.Duration
			client, _ := l.Connect(feed{watch: func(stream watchServer) error {
				stream.Send(&feedv1.Event{Body: strings.Repeat("x", 40_000)})
				return topic().watch(stream)
			}}, lab.WithBandwidth(1000))
			err := watch(l.Context(), client, "deploys", limit, func(*feedv1.Event) {
				came = append(came, time.Since(start).Round(time.Second))
			})
			want := []time.Duration{40 * time.Second}
			if limit == idle {
				want = nil
			}
			if !slices.Equal(came, want) || !errors.Is(err, ErrIdle) {
				l.Errorf("with a limit of %v the event came at %v, and then %v, want %v and ErrIdle", limit, came, err, want)
			}
			l.Logf("limit %v: the event came at %v, then %v", limit, came, err)
		})
	}
}

// Three ways and three topics: one that is silent after 40 s, one with an event
// each 20 s, of which each takes 45 s to handle, and one whose caller leaves.
func TestEachWayMeetsSilenceASlowHandleAndACancel(t *testing.T) {
	format := "%-15s  %-18s  %-23s  %-18s  %s\n"
	table := fmt.Sprintf(format, "", "silence after 40s", "5 events, 45s to handle", "cancel after 60s", "what the silence left")
	for _, way := range []struct {
		name  string
		watch watcher
	}{{"watchRacing", watchRacing}, {"watchResetting", watchResetting}, {"watch", watch}} {
		var silence, slow, cancelled outcome
		var left []string
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(topic(20*time.Second, 20*time.Second))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			silence = try(ctx, client, way.watch, 0)
			leaks := strings.Join(l.Leaks(), "\n")
			for _, what := range []struct{ is, name string }{{"RPCs never ended", "RPC"}, {"a goroutine that was started", "goroutine"}, {"handler still runs", "handler"}} {
				if strings.Contains(leaks, what.is) {
					left = append(left, what.name)
				}
			}
		})
		lab.Run(t, func(l *lab.Lab) {
			client, _ := busy(l, 5)
			slow = try(l.Context(), client, way.watch, 45*time.Second)
		})
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(topic(20*time.Second, 20*time.Second))
			ctx, cancel := context.WithCancel(l.Context())
			time.AfterFunc(time.Minute, cancel)
			cancelled = try(ctx, client, way.watch, 0)
		})
		table += fmt.Sprintf(format, way.name,
			fmt.Sprintf("%s at %.0fs", says(silence.err), silence.took.Seconds()),
			fmt.Sprintf("%s, %d handled", says(slow.err), slow.events),
			fmt.Sprintf("%s at %.0fs", says(cancelled.err), cancelled.took.Seconds()),
			cmp.Or(strings.Join(left, ", "), "nothing"))
	}
	lab.Golden(t, "ways.txt", table)
	t.Log("\n" + table)
}

// busy is a topic with an event each 20 s, n of them, and an end.
func busy(l *lab.Lab, n int) (feedv1.FeedServiceClient, *lab.Link) {
	l.Helper()
	gaps := slices.Repeat([]time.Duration{20 * time.Second}, n)
	return l.Connect(feed{watch: func(stream watchServer) error { return send(stream, gaps...) }})
}

func TestASlowHandleIsNotSilence(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		const n, takes = 20, time.Hour
		client, _ := busy(l, n)
		o := try(l.Context(), client, watch, takes)
		if o.events != n || o.err != nil {
			l.Errorf("watch handled %d events and returned %v, want all and nil", o.events, o.err)
		}
		client, _ = l.Connect(topic(time.Second))
		silent := try(l.Context(), client, watch, takes)
		if want := time.Second + 2*lab.Latency + takes + idle; silent.took != want || !errors.Is(silent.err, ErrIdle) {
			l.Errorf("watch returned %v after %v, want ErrIdle %v after the handle of an hour", silent.err, silent.took, idle)
		}
		l.Logf("%d events of an hour each, and nil; silence after another: ErrIdle %v after its handle", o.events, idle)
	}, lab.Lasts(25*time.Hour))
}

// Events come 20 s apart, each takes 45 s to handle. The timer, set when event
// 1 came, fires while it is handled. What had come by then is still received
// (recvBufferReader in internal/transport/transport.go reads what is there
// before the context's error).
func TestATimerThatRunsWhileHandleDoesEndsABusyStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		start := time.Now()
		var at []string
		client, link := busy(l, 5)
		err := watchResetting(l.Context(), client, "deploys", idle, func(*feedv1.Event) {
			at = append(at, fmt.Sprintf("%.0fs", time.Since(start).Seconds()))
			time.Sleep(45 * time.Second)
		})
		var reset string
		for _, f := range link.Frames() {
			if f.Type == "RST_STREAM" {
				reset = fmt.Sprintf("%s at %.0fs", f.Text, f.At.Seconds())
			}
		}
		if want := []string{"20s", "65s"}; !slices.Equal(at, want) || status.Code(err) != codes.Canceled || reset != "CANCEL at 50s" {
			l.Errorf("events were handled at %v, RST_STREAM was %s, the error is %v, want %v, CANCEL at 50s and Canceled", at, reset, err, want)
		}
		l.Logf("RST_STREAM %s; events are handled at %v, then %v: 3 of 5 are lost", reset, at, err)
	})
}

// In silence, and where the caller leaves.
func TestAPlainCancelDoesNotTellWhoseItWas(t *testing.T) {
	for _, tt := range []struct {
		name  string
		watch watcher
		alike bool
	}{{"watchResetting", watchResetting, true}, {"watch", watch, false}} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(topic())
			silence := try(l.Context(), client, tt.watch, 0).err
			ctx, cancel := context.WithCancel(l.Context())
			time.AfterFunc(20*time.Second, cancel)
			callers := try(ctx, client, tt.watch, 0).err
			if alike := silence.Error() == callers.Error(); alike != tt.alike {
				l.Errorf("%s: in silence %q, at the caller's cancel %q, alike: %v", tt.name, silence, callers, alike)
			}
			l.Logf("%s: in silence %q, at the caller's cancel %q", tt.name, silence, callers)
		})
	}
}

// A second before the limit the caller ends it.
func TestTheFirstCauseStays(t *testing.T) {
	for _, tt := range []struct {
		what string
		make func(ctx context.Context) (context.Context, func())
		want codes.Code
	}{
		{"a cancel", func(ctx context.Context) (context.Context, func()) { return context.WithCancel(ctx) }, codes.Canceled},
		{"a cancel with an ErrIdle of its own", func(ctx context.Context) (context.Context, func()) {
			ctx, cancel := context.WithCancelCause(ctx)
			return ctx, func() { cancel(ErrIdle) }
		}, codes.Canceled},
		{"a deadline", func(ctx context.Context) (context.Context, func()) {
			return context.WithTimeout(ctx, idle-time.Second)
		}, codes.DeadlineExceeded},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(topic())
			ctx, cancel := tt.make(l.Context())
			defer cancel()
			if tt.want == codes.Canceled {
				time.AfterFunc(idle-time.Second, cancel)
			}
			o := try(ctx, client, watch, 0)
			if errors.Is(o.err, ErrIdle) || status.Code(o.err) != tt.want || o.took != idle-time.Second {
				l.Errorf("%s after 29s: watch returned %v after %v, want %v after 29s", tt.what, o.err, o.took, tt.want)
			}
			l.Logf("%s after 29s: %v", tt.what, o.err)
		})
	}
}

// A function of AfterFunc runs on a goroutine of its own.
func TestStopAndResetDoNotTakeBackWhatHasBegun(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var begun atomic.Int32
		release := make(chan bool)
		timer := time.AfterFunc(idle, func() { begun.Add(1); <-release })
		time.Sleep(idle + time.Second)
		stopped, before := timer.Stop(), begun.Load()
		reset := timer.Reset(idle)
		time.Sleep(idle + time.Second)
		if after := begun.Load(); stopped || reset || before != 1 || after != 2 {
			l.Errorf("after the limit Stop said %v and Reset %v, the function began %d times and then %d, want false, false, 1, 2", stopped, reset, before, after)
		}
		close(release)
		l.Logf("after the limit Stop says %v while the function runs, Reset says %v and begins it a second time", stopped, reset)
	})
}

// An event that comes exactly at the limit: at a tie the bubble fires timers in
// any order. When Stop comes before the function has begun, the stream lives for
// one limit more. That is rare, and allowed here.
func TestAtTheVeryInstantAnEventIsInOrOut(t *testing.T) {
	const n = 50
	in := 0
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(topic(0, idle))
		for range n {
			o := try(l.Context(), client, watch, 0)
			ends := idle + 2*lab.Latency
			if inTime := o.events == 2 && o.took == ends+idle; !errors.Is(o.err, ErrIdle) || o.took != ends && !inTime {
				l.Fatalf("watch had %d events and returned %v after %v, want ErrIdle at a limit", o.events, o.err, o.took)
			}
			in += o.events - 1
		}
	}, lab.Lasts(n*time.Minute))
	if in == 0 || in == n {
		t.Errorf("%d of %d events that came at the limit were handled, want some and not all", in, n)
	}
	t.Logf("of %d events that came at the limit %d were handled", n, in)
}

// The end comes exactly at the limit: watch says what its last Recv said.
func TestAnEndAtTheVeryInstantStaysWhatItIs(t *testing.T) {
	const n = 50
	ended, both := 0, 0
	lab.Run(t, func(l *lab.Lab) {
		var last lastRecv
		link := l.NewLink()
		link.Serve(feed{watch: func(stream watchServer) error {
			send(stream, 0)
			pause(stream.Context(), idle)
			return nil
		}})
		client := feedv1.NewFeedServiceClient(link.Dial(grpc.WithStreamInterceptor(last.intercept)))
		for range n {
			err := try(l.Context(), client, watch, 0).err
			if last.err == io.EOF != (err == nil) || err != nil && !errors.Is(err, ErrIdle) {
				l.Fatalf("the last Recv said %v, and watch %v, want nil for EOF and else ErrIdle", last.err, err)
			}
			if err == nil {
				ended++
				if context.Cause(last.ctx) != context.Canceled {
					both++
				}
			}
		}
	}, lab.Lasts(n*time.Minute))
	if ended == 0 || ended == n {
		t.Errorf("%d of %d streams that ended at the limit said so, want some and not all", ended, n)
	}
	t.Logf("of %d streams that ended at the limit %d said so, %d of them with the silence as their context's cause", n, ended, both)
}

// lastRecv keeps the context of the last stream and what its last Recv said.
type lastRecv struct {
	grpc.ClientStream
	ctx context.Context
	err error
}

func (r *lastRecv) intercept(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	streamer grpc.Streamer, opts ...grpc.CallOption) (stream grpc.ClientStream, err error) {
	r.ctx = ctx
	r.ClientStream, err = streamer(ctx, desc, cc, method, opts...)
	return r, err
}

func (r *lastRecv) RecvMsg(m any) error {
	r.err = r.ClientStream.RecvMsg(m)
	return r.err
}

// Event 2 comes when recvWithin has given up: the Recv that it left behind takes
// it, and nobody looks there. gRPC wants no two Recvs at once on a stream (Recv
// in stream.go), and the race detector not even two in turn, if nothing tells
// the second of the end of the first: inTurn does.
func TestAnAbandonedRecvTakesTheNextEvent(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(topic(time.Second, 59*time.Second, 30*time.Second))
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{})
		if err != nil {
			l.Fatal(err)
		}
		var ended atomic.Int32
		var got []string
		for range 3 {
			ev, err := recvWithin(inTurn{stream, &ended}, idle)
			got = append(got, cmp.Or(ev.GetId(), says(err)))
			time.Sleep(20 * time.Second) // the caller takes its time before it asks again
		}
		if want := []string{"1", "ErrIdle", "3"}; !slices.Equal(got, want) {
			l.Errorf("three calls of recvWithin returned %v, want %v", got, want)
		}
		l.Logf("events 1, 2 and 3 came; three calls of recvWithin returned %v", got)
	})
}

// inTurn is a stream whose Recvs know of each other's ends.
type inTurn struct {
	watchClient
	ended *atomic.Int32
}

func (s inTurn) Recv() (*feedv1.Event, error) {
	s.ended.Load()
	defer s.ended.Add(1)
	return s.watchClient.Recv()
}

func TestARaceLeavesGoroutineStreamAndHandler(t *testing.T) {
	for _, cancels := range []bool{false, true} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(topic())
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			if o := try(ctx, client, watchRacing, 0); o.took != idle || !errors.Is(o.err, ErrIdle) {
				l.Errorf("watchRacing returned %v after %v, want ErrIdle after 30s", o.err, o.took)
			}
			if cancels {
				cancel()
			}
			time.Sleep(24 * time.Hour)
			leaks := strings.Join(l.Leaks(), "\n")
			for _, what := range []string{"1 of 1 RPCs never ended", "blocked in Recv at main.go:", "the server's Watch handler still runs"} {
				if strings.Contains(leaks, what) == cancels {
					l.Errorf("a day later, cancelled: %v, the lab finds %q, want %q: %v", cancels, leaks, what, !cancels)
				}
			}
			l.Logf("a day later, cancelled: %v: %q", cancels, leaks)
		}, lab.Lasts(25*time.Hour))
	}
}

func TestThePeerSeesACancelAndNoCause(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		seen := make(chan error, 2)
		client, link := l.Connect(feed{watch: func(stream watchServer) error {
			<-stream.Context().Done()
			seen <- context.Cause(stream.Context())
			seen <- stream.Send(&feedv1.Event{})
			return nil
		}})
		try(l.Context(), client, watch, 0)
		cause, sent := <-seen, <-seen
		frames := link.Frames()
		last := frames[len(frames)-1]
		if cause != context.Canceled || status.Code(sent) != codes.Canceled || last.Type+" "+last.Text != "RST_STREAM CANCEL" || last.At != idle {
			l.Errorf("the handler's cause is %v, its Send says %v, the last frame is %v %s at %v, want Canceled, Canceled and RST_STREAM CANCEL at 30s", cause, sent, last.Type, last.Text, last.At)
		}
		l.Logf("%s %s at %v; the handler's cause: %v, its Send: %v", last.Type, last.Text, last.At, cause, sent)
	})
}

// Pings keep the connection, not the stream. A limit of three heartbeats stands
// one that is missing, a limit of one and a half does not.
func TestAHeartbeatIsAnEventAndAPingIsNone(t *testing.T) {
	for _, tt := range []struct {
		what string
		feed feed
		want time.Duration
	}{
		{"pings each 10s", topic(), idle},
		{"pings, and heartbeats each 20s for an hour", topic(slices.Repeat([]time.Duration{20 * time.Second}, 180)...), time.Hour + 2*lab.Latency + idle},
		{"pings, and heartbeats each 10s, but for the second", topic(10*time.Second, 20*time.Second, 10*time.Second), 40*time.Second + 2*lab.Latency + idle},
		{"pings, and heartbeats each 20s, but for the second", topic(20*time.Second, 40*time.Second, 20*time.Second), 20*time.Second + 2*lab.Latency + idle},
	} {
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			link.Serve(tt.feed, grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}))
			conn := link.Dial(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}))
			o := try(l.Context(), feedv1.NewFeedServiceClient(conn), watch, 0)
			pings := 0
			for _, f := range link.Frames() {
				if f.Type == "PING" && f.From == lab.Server && f.Text == "ACK" {
					pings++
				}
			}
			if o.took != tt.want || !errors.Is(o.err, ErrIdle) || pings < 2 {
				l.Errorf("%s: watch returned %v after %v and %d answered pings, want ErrIdle after %v", tt.what, o.err, o.took, pings, tt.want)
			}
			l.Logf("%s: %v after %v, %d pings answered", tt.what, o.err, o.took, pings)
		}, lab.Lasts(2*time.Hour))
	}
}

// The handler learns of the silence from the event that ends it.
func TestADerivedContextDoesNotReachRecv(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		returned := make(chan time.Time, 1)
		s := &server{idle: idle, store: nothing, upload: func(s *server, stream uploadServer) error {
			defer func() { returned <- time.Now() }()
			return s.uploadDeriving(stream)
		}}
		client, _ := l.Connect(s)
		stream, cancel := openUpload(l, client)
		defer cancel()
		stream.Send(&feedv1.Event{})
		time.Sleep(time.Hour)
		stuck := l.Stuck()
		if len(returned) != 0 || !strings.Contains(stuck, "blocked in Recv at main.go:") {
			l.Errorf("after an hour the handler is not in Recv, but: %s", stuck)
		}
		sent := time.Now()
		stream.Send(&feedv1.Event{})
		err := stream.RecvMsg(new(feedv1.UploadResult))
		if late := (<-returned).Sub(sent); late != lab.Latency || status.Code(err) != codes.DeadlineExceeded {
			l.Errorf("after an hour an event came, and the handler returned %v later, RecvMsg says %v, want %v and DeadlineExceeded", late, err, lab.Latency)
		}
		l.Logf("limit %v; after an hour: %s; when an event came, %v", idle, stuck, status.Code(err))
	}, lab.Lasts(2*time.Hour))
}

// Events a second before the limit, then none. The handler's goroutine is gone
// a moment after: the lab looks for it while the connection is open.
func TestTheHandlersReturnEndsItsRecv(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var last time.Time
		times := make(chan time.Time, 2)
		s := uploader(func(*feedv1.Event) { last = time.Now() })
		s.upload = func(s *server, stream uploadServer) error {
			defer func() { times <- last; times <- time.Now() }()
			return s.uploadBounded(stream)
		}
		client, _ := l.Connect(s)
		stream, cancel := openUpload(l, client)
		defer cancel()
		for range 10 {
			stream.Send(&feedv1.Event{})
			time.Sleep(idle - time.Second)
		}
		received, sent := stream.RecvMsg(new(feedv1.UploadResult)), stream.Send(&feedv1.Event{})
		event, returned := <-times, <-times
		if late := returned.Sub(event); late != idle || time.Since(returned) != lab.Latency {
			l.Errorf("the handler returned %v after the last event, the client knew %v later, want 30s and one latency", late, time.Since(returned))
		}
		if status.Code(received) != codes.DeadlineExceeded || status.Convert(received).Message() != "no event for 30s" || sent != io.EOF {
			l.Errorf("RecvMsg says %v and Send %v, want the handler's status and EOF", received, sent)
		}
		cancel()
		if leaks := l.Leaks(); len(leaks) > 0 {
			l.Errorf("a second later the lab finds %q", leaks)
		}
		l.Logf("the handler returned %v after the last event; Recv: %v, Send: %v; nothing is left", returned.Sub(event), received, sent)
	})
}

func TestASlowStoreIsNotSilenceEither(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(uploader(func(*feedv1.Event) { time.Sleep(time.Hour) }))
		stream, cancel := openUpload(l, client)
		defer cancel()
		for range 20 {
			stream.Send(&feedv1.Event{})
			time.Sleep(20 * time.Second)
		}
		result, err := stream.CloseAndRecv()
		if err != nil || result.GetReceived() != 20 {
			l.Errorf("CloseAndRecv returned %v and %v, want 20 events and nil", result, err)
		}
		l.Logf("%d events of an hour each are stored, CloseAndRecv says %v", result.GetReceived(), err)
	}, lab.Lasts(25*time.Hour))
}

// openUpload opens an upload that ends with the test.
func openUpload(l *lab.Lab, client feedv1.FeedServiceClient) (grpc.ClientStreamingClient[feedv1.Event, feedv1.UploadResult], func()) {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		l.Fatal(err)
	}
	return stream, cancel
}

func uploader(store func(*feedv1.Event)) *server {
	return &server{idle: idle, store: store, upload: (*server).uploadBounded}
}
