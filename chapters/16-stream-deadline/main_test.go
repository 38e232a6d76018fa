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
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const (
	topic     = "deploys"
	opening   = 5 * time.Second // what a test allows for it
	roundTrip = 2 * lab.Latency
	aDay      = 24 * time.Hour
)

// scripted is a server whose Watch a test plays.
type scripted struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(watchServer) error
}

func (s scripted) Watch(_ *feedv1.WatchRequest, stream watchServer) error { return s.watch(stream) }

// stays says nothing and waits for the end.
func stays(stream watchServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// opens sends its header and stays.
func opens(stream watchServer) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	return stays(stream)
}

func ignore(*feedv1.Event) {}

// count returns a handle that counts.
func count() (*int, func(*feedv1.Event)) {
	n := new(int)
	return n, func(*feedv1.Event) { *n++ }
}

// An ends makes a context that ends in its own way.
type ends = func(context.Context) (context.Context, context.CancelFunc)

func timeout(d time.Duration) ends {
	return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
}

func cancelAfter(d time.Duration) ends {
	return func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		time.AfterFunc(d, cancel)
		return ctx, cancel
	}
}

// dial serves s on a link of its own and connects to it.
func dial(l *lab.Lab, s feedv1.FeedServiceServer, opts ...grpc.DialOption) (feedv1.FeedServiceClient, *lab.Link) {
	link := l.NewLink()
	link.Serve(s)
	return feedv1.NewFeedServiceClient(link.Dial(opts...)), link
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// The recording that the README shows: a deadline, and a timer that is stopped.
func TestTheRecordingIsFresh(t *testing.T) {
	var ladders []string
	record := func(s feedv1.FeedServiceServer, name string, watch func(*lab.Lab, feedv1.FeedServiceClient) error) {
		lab.Run(t, func(l *lab.Lab) {
			client, link := l.Connect(s)
			link.Note(lab.Client, "%s", name)
			err := watch(l, client)
			link.Note(lab.Client, "%v", err)
			l.Settle() // the cancel is on the wire; what the server answers is a tie
			ladder := strings.TrimSpace(link.Ladder())
			if len(ladders) > 0 {
				_, ladder, _ = strings.Cut(ladder, "\n")
			} else {
				ladder = strings.Repeat(" ", 8) + ladder
			}
			ladders = append(ladders, ladder)
		}, lab.Lasts(2*time.Hour))
	}
	record(&server{every: 25 * time.Second}, "watchWithin(a minute)", func(l *lab.Lab, client feedv1.FeedServiceClient) error {
		return watchWithin(l.Context(), client, topic, time.Minute, ignore)
	})
	record(&server{every: 90 * time.Minute}, "watch(5s), and its caller cancels after 1h50m", func(l *lab.Lab, client feedv1.FeedServiceClient) error {
		ctx, cancel := cancelAfter(110 * time.Minute)(l.Context())
		defer cancel()
		return watch(ctx, client, topic, opening, ignore)
	})
	lab.Golden(t, "wire.txt", strings.Join(ladders, "\n\n")+"\n")
}

// withTimeout is an interceptor that gives each stream a minute, as the
// interceptors of unary calls do. OnFinish calls the cancel, where a defer
// would end the stream as soon as it is open.
func withTimeout(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	return open(ctx, desc, conn, method, append(opts, grpc.OnFinish(func(error) { cancel() }))...)
}

// The minute comes from the context, or past a timer that was stopped from a
// service config or an interceptor, or is the shorter of two; an event flows
// each second.
func TestAMinuteEndsAStreamThatFlows(t *testing.T) {
	for _, tt := range []struct {
		what   string
		watch  watcher
		within time.Duration
		opt    grpc.DialOption
	}{
		{"the context's deadline", watchWithin, time.Minute, grpc.EmptyDialOption{}},
		{"a service config's timeout", watch, opening, grpc.WithDefaultServiceConfig(config(time.Minute, true))},
		{"an interceptor's deadline", watch, opening, grpc.WithStreamInterceptor(withTimeout)},
		{"a context's hour, a config's minute", watchWithin, time.Hour, grpc.WithDefaultServiceConfig(config(time.Minute, true))},
		{"a context's minute, a config's hour", watchWithin, time.Minute, grpc.WithDefaultServiceConfig(config(time.Hour, true))},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := dial(l, &server{every: time.Second}, tt.opt)
			n, handle := count()
			start := time.Now()
			err := tt.watch(l.Context(), client, topic, tt.within, handle)
			took := time.Since(start)
			if *n != 59 || took != time.Minute || status.Code(err) != codes.DeadlineExceeded {
				l.Errorf("%s: %d events, then %v after %v, want 59 and DeadlineExceeded after 1m0s", tt.what, *n, err, took)
			}
			l.Logf("%s: %d events, then %v after %v", tt.what, *n, status.Code(err), took)
		})
	}
}

// The entry that names the method is the only one that counts for it
// (service_config.go, getMethodConfig): it takes nothing over from the other.
func TestAnEntryForTheMethodFreesTheStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := dial(l, &server{every: time.Minute}, grpc.WithDefaultServiceConfig(config(time.Minute, false)))
		ctx, cancel := context.WithTimeout(l.Context(), time.Hour)
		defer cancel()
		n, handle := count()
		err := watch(ctx, client, topic, opening, handle)
		if *n != 59 || status.Code(err) != codes.DeadlineExceeded {
			l.Errorf("Watch: %d events in an hour, then %v, want 59 and the context's deadline", *n, err)
		}
		other, err := client.Chat(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		at, ok := other.Context().Deadline()
		if left := time.Until(at); !ok || left != time.Minute {
			l.Errorf("Chat has a deadline: %v, %v away, want a minute", ok, left)
		}
		other.Recv() // Unimplemented
		l.Logf("Watch: %d events in an hour; Chat, which has no entry: a minute", *n)
	}, lab.Lasts(2*time.Hour))
}

func TestBothSidesCanAskForTheDeadlineButNotForTheTimer(t *testing.T) {
	for _, tt := range []struct {
		what    string
		watch   watcher
		opt     grpc.DialOption
		want    time.Duration
		timeout string
	}{
		{"watchWithin(a minute)", watchWithin, grpc.EmptyDialOption{}, time.Minute, "60000000u"},
		{"a service config", watch, grpc.WithDefaultServiceConfig(config(time.Hour, true)), time.Hour, "3600000m"},
		{"watch(a minute)", watch, grpc.EmptyDialOption{}, 0, ""},
	} {
		lab.Run(t, func(l *lab.Lab) {
			var atServer time.Duration
			client, link := dial(l, scripted{watch: func(stream watchServer) error {
				if at, ok := stream.Context().Deadline(); ok {
					atServer = time.Until(at)
				}
				return nil
			}}, tt.opt)
			if err := tt.watch(l.Context(), client, topic, time.Minute, ignore); err != nil {
				l.Fatal(err)
			}
			timeout := link.Frames()[0].Field("grpc-timeout")
			if atServer != tt.want || timeout != tt.timeout {
				l.Errorf("%s: the handler has %v, grpc-timeout is %q, want %v and %q", tt.what, atServer, timeout, tt.want, tt.timeout)
			}
			l.Logf("%-22s grpc-timeout %q; the handler, a latency later, has %v left (0s: no deadline)", tt.what+":", timeout, atServer)
		})
	}
}

// A reader that takes two seconds for each event of a second.
func TestASlowReaderHearsOfTheDeadlineLate(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{every: time.Second})
		n, late, start := 0, 0, time.Now()
		err := watchWithin(l.Context(), client, topic, time.Minute, func(*feedv1.Event) {
			if n++; time.Since(start) > time.Minute {
				late++
			}
			time.Sleep(2 * time.Second)
		})
		took := time.Since(start)
		if n != 59 || late != 29 || took != 119*time.Second+roundTrip || status.Code(err) != codes.DeadlineExceeded {
			l.Errorf("%d events, %d of them late, then %v after %v, want 59, 29 and DeadlineExceeded after 1m59s", n, late, err, took)
		}
		l.Logf("%d events, %d of them after the deadline, then %v after %v", n, late, status.Code(err), took)
	})
}

// The client gives up after a minute: by a deadline, which the server knows
// too, or by a cancel, which a dead network swallows.
func TestADeadlineEndsTheHandlerInADeadNetwork(t *testing.T) {
	for _, tt := range []struct {
		what string
		ctx  ends
		want time.Duration // the handler's life; 0 if it still runs an hour later
	}{{"a deadline", timeout(time.Minute), time.Minute}, {"a cancel", cancelAfter(time.Minute), 0}} {
		lab.Run(t, func(l *lab.Lab) {
			var lived atomic.Int64
			client, link := l.Connect(scripted{watch: func(stream watchServer) error {
				defer func(start time.Time) { lived.Store(int64(time.Since(start))) }(time.Now())
				return opens(stream)
			}})
			ctx, cancel := tt.ctx(l.Context())
			defer cancel()
			time.AfterFunc(time.Second, link.Blackhole)
			start := time.Now()
			err := watch(ctx, client, topic, opening, ignore)
			took := time.Since(start)
			time.Sleep(time.Hour)
			if got := time.Duration(lived.Load()); got != tt.want || took != time.Minute {
				l.Errorf("%s: %v after %v; the handler lived for %v, want %v (0s: an hour later it runs)", tt.what, err, took, got, tt.want)
			}
			l.Logf("%s: the client has %v after %v; the handler lived for %v (0s: an hour later it runs)", tt.what, status.Code(err), took, time.Duration(lived.Load()))
			link.Heal()
		}, lab.Lasts(2*time.Hour))
	}
}

func TestASubscriptionLivesForAWeek(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(&server{every: time.Hour})
		ctx, cancel := cancelAfter(7*aDay + time.Minute)(l.Context())
		defer cancel()
		n, handle := count()
		err := watch(ctx, client, topic, opening, handle)
		if *n != 7*24 || status.Code(err) != codes.Canceled || l.Elapsed() < 7*aDay {
			l.Errorf("%d events in %v, then %v, want 168 in a week and the caller's cancel", *n, l.Elapsed(), err)
		}
		l.Logf("%d events in a week, an hour of silence before each; the opening had %v", *n, opening)
	}, lab.Lasts(8*aDay))
}

// A scene is what stands in the way of an opening.
type scene struct {
	what  string
	watch func(watchServer) error
	wait  bool                                                       // for ready
	set   func(*lab.Link, feedv1.FeedServiceClient, context.Context) // before the opening
	name  bool                                                       // does not resolve
}

func scenes() []scene {
	cut := func(link *lab.Link, _ feedv1.FeedServiceClient, _ context.Context) {
		link.Cut()
		time.Sleep(time.Second) // the client has noticed
	}
	return []scene{
		{what: "nothing", watch: opens},
		{what: "the server refuses", watch: func(watchServer) error { return status.Error(codes.NotFound, "no such topic") }},
		{what: "the handler sends no header", watch: stays},
		{what: "the network is dead", watch: opens, set: func(link *lab.Link, _ feedv1.FeedServiceClient, _ context.Context) { link.Blackhole() }},
		{what: "no place on the connection", watch: opens, set: func(_ *lab.Link, client feedv1.FeedServiceClient, ctx context.Context) {
			client.Watch(ctx, &feedv1.WatchRequest{}) // MaxConcurrentStreams is 1
			time.Sleep(time.Second)
		}},
		{what: "the name is not resolved", watch: opens, name: true},
		{what: "dead network, not connected", watch: opens, set: func(link *lab.Link, client feedv1.FeedServiceClient, ctx context.Context) {
			cut(link, client, ctx)
			link.Blackhole()
		}},
		{what: "no server", watch: opens, set: cut},
		{what: "no server, WaitForReady", watch: opens, set: cut, wait: true},
	}
}

// in plays the scene.
func (s scene) in(t *testing.T, body func(l *lab.Lab, client feedv1.FeedServiceClient, opts ...grpc.CallOption)) {
	lab.Run(t, func(l *lab.Lab) {
		link := l.NewLink()
		link.Serve(scripted{watch: s.watch}, grpc.MaxConcurrentStreams(1))
		client := feedv1.NewFeedServiceClient(link.Dial())
		if s.name { // a resolver that never tells an address
			conn, err := grpc.NewClient("silent:///feed", grpc.WithTransportCredentials(insecure.NewCredentials()),
				grpc.WithResolvers(manual.NewBuilderWithScheme("silent")))
			if err != nil {
				l.Fatal(err)
			}
			defer conn.Close()
			client = feedv1.NewFeedServiceClient(conn)
		}
		ctx, cancel := context.WithCancel(l.Context())
		if s.set != nil {
			s.set(link, client, ctx)
		}
		body(l, client, grpc.WaitForReady(s.wait))
		link.Heal()
		cancel()
	}, lab.Lasts(3*aDay))
}

// The table that the README shows: which call waits, for how long if nothing
// bounds it, and what a bound makes of it.
func TestWhereAnOpeningWaits(t *testing.T) {
	const row = "%-29s%-24s%-11s%s\n"
	table := fmt.Sprintf(row, "in the way", "client.Watch", "Header", "watch, bound 5s")
	said := func(code codes.Code, took time.Duration, limit time.Duration) string {
		if took >= limit {
			return "waits"
		}
		return strings.TrimPrefix(fmt.Sprintf("%v, %v", code, took), "OK, ")
	}
	for _, s := range scenes() {
		open, header := "", "-"
		s.in(t, func(l *lab.Lab, client feedv1.FeedServiceClient, opts ...grpc.CallOption) {
			ctx, cancel := context.WithTimeout(l.Context(), aDay)
			defer cancel()
			start := time.Now()
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{}, opts...)
			open = said(status.Code(err), time.Since(start), aDay)
			if err != nil {
				return
			}
			start = time.Now()
			stream.Header()
			header = said(codes.OK, time.Since(start), aDay)
		})
		s.in(t, func(l *lab.Lab, client feedv1.FeedServiceClient, opts ...grpc.CallOption) {
			ctx, cancel := cancelAfter(2 * aDay)(l.Context())
			defer cancel()
			start := time.Now()
			err := watch(ctx, client, topic, opening, ignore, opts...)
			bounded := said(status.Code(err), time.Since(start), 2*aDay)
			if bounded == "waits" {
				bounded = "open two days later"
			}
			table += fmt.Sprintf(row, s.what, open, header, bounded)
		})
	}
	t.Logf("\n%s", table)
	lab.Golden(t, "openings.txt", table)
}

// stream.go, (*clientStream).Header: the error is kept for Recv, also that of
// a context.
func TestHeaderReturnsNoErrorRecvDoes(t *testing.T) {
	for _, tt := range []struct {
		what  string
		watch func(watchServer) error
		end   func(*lab.Link, func())
		want  codes.Code
	}{
		{"the server refuses", func(watchServer) error { return status.Error(codes.NotFound, "") }, nil, codes.NotFound},
		{"the connection is cut", stays, func(link *lab.Link, _ func()) { link.Cut() }, codes.Unavailable},
		{"the context is cancelled", stays, func(_ *lab.Link, cancel func()) { cancel() }, codes.Canceled},
		{"the deadline passes", stays, nil, codes.DeadlineExceeded},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, link := l.Connect(scripted{watch: tt.watch})
			ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
			defer cancel()
			stream, err := client.Watch(ctx, &feedv1.WatchRequest{})
			if err != nil {
				l.Fatal(err)
			}
			if tt.end != nil {
				time.AfterFunc(time.Second, func() { tt.end(link, cancel) })
			}
			md, none := stream.Header()
			_, err = stream.Recv()
			if md != nil || none != nil || status.Code(err) != tt.want {
				l.Errorf("%s: Header returned %v, %v and Recv %v, want nil, nil and %v", tt.what, md, none, err, tt.want)
			}
			l.Logf("%s: Header: nil, nil; Recv: %v", tt.what, status.Code(err))
		})
	}
}

// late opens a stream when the bound is over, as on a machine that is busy.
func late(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	time.Sleep(opening + time.Second)
	return open(ctx, desc, conn, method, opts...)
}

func TestWatchTellsItsTimerFromItsCaller(t *testing.T) {
	none := grpc.EmptyDialOption{}
	canceled := func(watchServer) error { return status.Error(codes.Canceled, "by the server") }
	for _, tt := range []struct {
		what  string
		watch func(watchServer) error
		ctx   ends
		opt   grpc.DialOption
		want  codes.Code
		after time.Duration
	}{
		{"the timer", stays, context.WithCancel, none, codes.DeadlineExceeded, opening},
		{"the caller's cancel", stays, cancelAfter(2 * time.Second), none, codes.Canceled, 2 * time.Second},
		{"the caller's deadline", stays, timeout(2 * time.Second), none, codes.DeadlineExceeded, 2 * time.Second},
		{"the caller's deadline, at the same instant", stays, timeout(opening), none, codes.DeadlineExceeded, opening},
		{"the caller's cancel, noticed when the timer has fired", stays, cancelAfter(2 * time.Second),
			grpc.WithStreamInterceptor(late), codes.Canceled, opening + time.Second},
		{"the server's own Canceled", canceled, context.WithCancel, none, codes.Canceled, roundTrip},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := dial(l, scripted{watch: tt.watch}, tt.opt)
			ctx, cancel := tt.ctx(l.Context())
			defer cancel()
			start := time.Now()
			err := watch(ctx, client, topic, opening, ignore)
			if took := time.Since(start); status.Code(err) != tt.want || took != tt.after {
				l.Errorf("%s: %v after %v, want %v after %v", tt.what, err, took, tt.want, tt.after)
			}
			l.Logf("%s: %v", tt.what, err)
		})
	}
}

// What gRPC itself makes of a timer that cancels: nothing in it names the timer.
func TestATimersCancelReadsLikeTheCallers(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(scripted{watch: stays})
		ctx, cancel := cancelAfter(opening)(l.Context())
		defer cancel()
		err := watchWithin(ctx, client, topic, time.Hour, ignore)
		if got := fmt.Sprint(err); got != "rpc error: code = Canceled desc = context canceled" {
			l.Errorf("a timer cancelled, and Recv returned %v, want Canceled", got)
		}
		l.Logf("a timer cancelled after %v: %v", opening, err)
	})
}

// after is a handler that sends its header, or its first event, after d.
func after(d time.Duration, header bool) func(watchServer) error {
	return func(stream watchServer) error {
		time.Sleep(d)
		if header {
			return opens(stream)
		}
		if err := stream.Send(&feedv1.Event{}); err != nil {
			return err
		}
		return stays(stream)
	}
}

// A day later the stream is open, or it never was.
func TestTheBoundIsForTheHeaderOrTheFirstEvent(t *testing.T) {
	for _, tt := range []struct {
		what    string
		handler func(watchServer) error
		want    time.Duration
	}{
		{"a header after 4.9s", after(4900*time.Millisecond, true), aDay},
		{"a header after 5.1s", after(5100*time.Millisecond, true), opening},
		{"a header, no event", opens, aDay},
		{"no header of its own, an event after 4.9s", after(4900*time.Millisecond, false), aDay},
		{"no header of its own, an event after an hour", after(time.Hour, false), opening},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, _ := l.Connect(scripted{watch: tt.handler})
			ctx, cancel := context.WithTimeout(l.Context(), aDay)
			defer cancel()
			start := time.Now()
			err := watch(ctx, client, topic, opening, ignore)
			if took := time.Since(start); took != tt.want {
				l.Errorf("%s: watch ended after %v with %v, want %v", tt.what, took, err, tt.want)
			}
			l.Logf("%s: the stream lived for %v", tt.what, time.Since(start))
			time.Sleep(time.Hour) // the handlers of after end
		}, lab.Lasts(2*aDay))
	}
}

// The server is away for a while. The channel dials again after about 1s and
// 2.6s, so it finds a server that is back in time (chapter 29).
func TestWaitForReadyOutwaitsARestart(t *testing.T) {
	for _, tt := range []struct {
		away, after time.Duration
		want        string
	}{
		{1500 * time.Millisecond, aDay, "context deadline exceeded"}, // its caller's
		{2 * aDay, opening, "connection refused"},
	} {
		lab.Run(t, func(l *lab.Lab) {
			client, link := l.Connect(scripted{watch: opens})
			link.Cut()
			time.Sleep(time.Millisecond) // the client has noticed
			time.AfterFunc(tt.away, link.Heal)
			ctx, cancel := context.WithTimeout(l.Context(), aDay)
			defer cancel()
			start := time.Now()
			err := watch(ctx, client, topic, opening, ignore, grpc.WaitForReady(true))
			took := time.Since(start)
			if took != tt.after || status.Code(err) != codes.DeadlineExceeded || !strings.Contains(err.Error(), tt.want) {
				l.Errorf("away for %v: %v after %v, want DeadlineExceeded after %v with %q", tt.away, err, took, tt.after, tt.want)
			}
			l.Logf("away for %v: %v after %v", tt.away, err, took)
		}, lab.Lasts(3*aDay))
	}
}
