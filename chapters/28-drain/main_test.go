package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const (
	aDay      = 24 * time.Hour
	roundTrip = 2 * lab.Latency
)

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// scene is a server and a client with one connection to it.
type scene struct {
	*lab.Lab
	*server
	link   *lab.Link
	srv    *grpc.Server
	client feedv1.FeedServiceClient
	ctx    context.Context // of all streams, unless the test makes one

	running atomic.Int32   // handlers of Watch
	told    chan time.Time // when the context of one ended
}

// play runs body with a scene.
func play(t *testing.T, watch watchFunc, body func(*scene), opts ...grpc.ServerOption) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		sc := &scene{Lab: l, server: newServer("old", time.Minute, watch), link: l.NewLink(), told: make(chan time.Time, 100)}
		var cancel context.CancelFunc
		sc.ctx, cancel = context.WithCancel(l.Context())
		defer cancel()
		sc.srv = sc.link.Serve(sc, opts...)
		sc.client = feedv1.NewFeedServiceClient(sc.link.Dial())
		body(sc)
	}, lab.Lasts(20*aDay))
}

func (sc *scene) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	sc.running.Add(1)
	defer sc.running.Add(-1)
	context.AfterFunc(stream.Context(), func() { sc.told <- time.Now() })
	return sc.server.Watch(req, stream)
}

// Publish takes a millisecond.
func (*scene) Publish(context.Context, *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	time.Sleep(time.Millisecond)
	return &feedv1.PublishResponse{Id: "1"}, nil
}

// goAways returns the server's GOAWAY frames.
func (sc *scene) goAways() []lab.Frame {
	return slices.DeleteFunc(sc.link.Frames(), func(f lab.Frame) bool { return f.Type != "GOAWAY" || f.From != lab.Server })
}

// show logs what the test saw, and if that is not right, what it wanted: the
// rest of format, from ", want".
func (sc *scene) show(right bool, format string, args ...any) {
	sc.Helper()
	text := fmt.Sprintf(format, args...)
	if !right {
		sc.Error(text)
	}
	saw, _, _ := strings.Cut(text, ", want")
	sc.Log(saw)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a stream and returns when its first event has come.
func (sc *scene) open() grpc.ServerStreamingClient[feedv1.Event] {
	sc.Helper()
	stream, err := sc.client.Watch(sc.ctx, &feedv1.WatchRequest{Topic: "deploys"})
	must(sc, err)
	_, err = stream.Recv()
	must(sc, err)
	return stream
}

// end reads the stream to its end, and counts the events.
func end(stream grpc.ServerStreamingClient[feedv1.Event]) (n int, err error) {
	for ; err == nil; n++ {
		_, err = stream.Recv()
	}
	return n - 1, err
}

// timed runs f and delivers how long it took.
func timed(f func()) <-chan time.Duration {
	took, start := make(chan time.Duration, 1), time.Now()
	go func() { f(); took <- time.Since(start) }()
	return took
}

// server.go, stop: drainAllServerTransportsLocked, and then it waits until there
// is no connection. Nobody cancels a stream.
func TestGracefulStopWaitsForAStreamAndTellsItsHandlerNothing(t *testing.T) {
	play(t, (*server).watchUntilTheClientLeaves, func(sc *scene) {
		sc.beat = aDay
		stream := sc.open()
		stopped := timed(sc.srv.GracefulStop)
		start := time.Now()
		for range 10 {
			_, err := stream.Recv()
			must(sc, err)
		}
		sc.show(len(stopped) == 0 && len(sc.told) == 0 && sc.running.Load() == 1, "GracefulStop was called %v ago, ten events have come since, it has returned: %v, contexts ended: %d, handlers: %d, want it to wait, and 0, 1", time.Since(start).Round(time.Hour), len(stopped) > 0, len(sc.told), sc.running.Load())
	})
}

// The server closes its listeners first (stop: closeListenersLocked). The GOAWAY
// takes the client's channel to idle, and the next RPC dials.
func TestNobodyNewComesIn(t *testing.T) {
	play(t, (*server).watchUntilDrained, func(sc *scene) {
		stream := sc.open()
		go sc.srv.GracefulStop()
		time.Sleep(time.Second)
		start := time.Now()
		_, err := sc.client.Publish(sc.ctx, &feedv1.PublishRequest{})
		took := time.Since(start)
		sc.show(status.Code(err) == codes.Unavailable && strings.HasSuffix(err.Error(), "connection refused\"") && took == roundTrip, "a call on the same ClientConn fails after %v: %v, want %v", took, err, roundTrip)

		patient := make(chan string, 1)
		go func() {
			stream, err := sc.client.Watch(sc.ctx, &feedv1.WatchRequest{}, grpc.WaitForReady(true))
			if err == nil {
				ev, _ := stream.Recv()
				patient <- ev.GetBody()
			}
		}()
		time.Sleep(10 * time.Second)
		waits := len(patient) == 0
		sc.link.Serve(newServer("new", time.Minute, (*server).watchUntilDrained))
		first := <-patient
		ev, err := stream.Recv()
		must(sc, err)
		sc.show(waits && first == "new" && ev.GetBody() == "old", "one with WaitForReady waits for a server: %v, and has an event of the %s one, the stream that was open has one of the %s one, want true, new, old", waits, first, ev.GetBody())
	})
}

// The recording that the README shows. http2_server.go, outgoingGoAwayHandler.
func TestTheRecordingIsFresh(t *testing.T) {
	play(t, (*server).watchUntilDrained, func(sc *scene) {
		stream := sc.open()
		sc.link.Mark()
		sc.link.Note(lab.Server, "GracefulStop is called, and waits")
		stopped := timed(func() {
			sc.srv.GracefulStop()
			sc.link.Note(lab.Server, "GracefulStop returns")
		})
		time.Sleep(2 * time.Millisecond)
		_, err := sc.client.Publish(sc.ctx, &feedv1.PublishRequest{Topic: "deploys"})
		must(sc, err)
		time.AfterFunc(time.Second, func() {
			sc.link.Note(lab.Server, "the handlers are told, and return")
			sc.drain()
		})
		_, err = end(stream)
		sc.link.Note(lab.Client, "Recv: %v: %s", status.Code(err), status.Convert(err).Message())
		<-stopped
		time.Sleep(time.Second)
		lab.Golden(sc, "wire.txt", sc.link.Ladder())
	})
}

// Between the two GOAWAYs lies a round trip, so that what the client sends
// before it hears of the first one is served, and named in the second.
func TestACallOnItsWayIsServedAndALaterOneIsNot(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		code  codes.Code
		last  int
	}{{0, codes.OK, 3}, {5 * time.Millisecond, codes.OK, 3}, {6 * time.Millisecond, codes.Unavailable, 1}} {
		play(t, (*server).watchUntilDrained, func(sc *scene) {
			sc.open()
			go sc.srv.GracefulStop()
			sc.Settle()
			time.Sleep(tt.after)
			_, err := sc.client.Publish(sc.ctx, &feedv1.PublishRequest{})
			time.Sleep(time.Second)
			const goAway = "NO_ERROR graceful_stop (last stream %d) "
			got, want := "", fmt.Sprintf(goAway+goAway, 1<<31-1, tt.last)
			for _, f := range sc.goAways() {
				got += f.Text + " "
			}
			sc.show(status.Code(err) == tt.code && got == want, "a call %v after GracefulStop: %v, the GOAWAYs: %s, want %v and %s", tt.after, status.Code(err), got, tt.code, want)
		})
	}
}

// outgoingGoAwayHandler waits 5 s for the answer to its PING, and the goroutine
// of NewServerTransport 1 s for the client to close the connection.
func TestAClientOutOfReachCostsSixSeconds(t *testing.T) {
	for _, tt := range []struct {
		client string
		before func(*scene)
		want   time.Duration
	}{
		{"in reach", func(*scene) {}, roundTrip},
		{"out of reach", func(sc *scene) { sc.link.Blackhole() }, 6 * time.Second},
		{"out of reach for 2s", func(sc *scene) {
			sc.link.Blackhole()
			time.AfterFunc(2*time.Second, sc.link.Heal)
		}, 2*time.Second + roundTrip},
		{"cut off", func(sc *scene) { sc.link.Cut() }, 0},
	} {
		for _, streams := range []bool{false, true} {
			play(t, (*server).watchUntilDrained, func(sc *scene) {
				if streams {
					go end(sc.open())
				}
				tt.before(sc)
				var clean bool
				took := <-timed(func() { clean = stopWithin(sc.srv, sc.drain, time.Minute) })
				sc.drain() // as by a second SIGTERM
				sc.show(clean && took == tt.want, "a stream: %v, its client is %s, the drain takes %v, want %v", streams, tt.client, took, tt.want)
			})
		}
	}
}

// What the handler returns is what the client knows.
func TestOnlyUnavailableBringsTheClientBack(t *testing.T) {
	for _, tt := range []struct {
		what string
		err  error
		want string // of follow; "" if it comes back
	}{
		{"nil", nil, "the topic has ended"},
		{"context.Canceled", context.Canceled, "rpc error: code = Canceled desc = context canceled"},
		{"an error of its own", errors.New("stopping"), "rpc error: code = Unknown desc = stopping"},
		{"Unavailable", status.Error(codes.Unavailable, "come back"), ""},
	} {
		watch := func(s *server, _ watchServer) error { <-s.draining; return tt.err }
		play(t, watch, func(sc *scene) {
			ctx, cancel := context.WithCancel(sc.ctx)
			var names []string
			time.AfterFunc(time.Minute, func() {
				go stopWithin(sc.srv, sc.drain, time.Minute)
				sc.Settle()
				sc.link.Serve(newServer("new", time.Minute, (*server).watchUntilDrained))
			})
			err := follow(ctx, sc.client, time.Second, func(ev *feedv1.Event) {
				if names = append(names, ev.GetBody()); ev.GetBody() == "new" {
					cancel()
				}
			}, func(error) {})
			got, want := "the topic has ended", tt.want
			if err != nil {
				got = err.Error()
			}
			back := slices.Equal(names, []string{"old", "new"})
			sc.show(back == (want == "") && (back || got == want), "the handler returns %s: the client has events of %v, follow says %q, want it back: %v, %q", tt.what, names, got, want == "", want)
			cancel()
		})
	}
}

func TestADrainWithoutGracefulStopTurnsClientsInCircles(t *testing.T) {
	for _, tt := range []struct {
		what  string
		drain func(*scene)
		want  int
	}{
		{"the handlers are told, and no GracefulStop", func(sc *scene) { sc.drain() }, 91}, // each 100 ms and a round trip
		{"GracefulStop, and the handlers are told", func(sc *scene) { stopWithin(sc.srv, sc.drain, time.Minute) }, 1},
	} {
		play(t, (*server).watchUntilDrained, func(sc *scene) {
			ctx, cancel := context.WithCancel(sc.ctx)
			n := 0
			time.AfterFunc(time.Minute-time.Millisecond, func() { tt.drain(sc) })
			time.AfterFunc(time.Minute+10*time.Second, cancel)
			follow(ctx, sc.client, 100*time.Millisecond, func(*feedv1.Event) {}, func(error) { n++ })
			sc.show(n == tt.want, "%s: within 10 s the client comes back %d times, want %d", tt.what, n, tt.want)
		})
	}
}

// server.go, stop: handlersWG.Wait, if graceful or with WaitForHandlers. Since
// grpc/grpc-go#9394 without the lock that the other call needs.
func TestADeafHandlerHoldsUpWhoeverWaitsForHandlers(t *testing.T) {
	for _, wait := range []bool{false, true} {
		deaf := func(*server, watchServer) error { time.Sleep(time.Hour + time.Minute); return nil }
		play(t, deaf, func(sc *scene) {
			go end(sc.open())
			graceful := timed(sc.srv.GracefulStop)
			time.Sleep(time.Minute)
			stop := timed(sc.srv.Stop)
			a, b := (<-graceful).Round(time.Second), (<-stop).Round(time.Second) // the handler is a latency older
			want := map[bool]time.Duration{false: 0, true: time.Hour}[wait]
			sc.show(a == time.Hour+time.Minute && b == want, "WaitForHandlers(%v), a deaf handler returns an hour after Stop was called: GracefulStop took %v, Stop %v, want 1h1m, %v", wait, a, b, want)
		}, grpc.WaitForHandlers(wait))
	}
}

// The status queues behind the data (internal/transport/controlbuf.go), and that
// waits for the client's window.
func TestTheHandlersReturnIsNotTheEndOfItsStream(t *testing.T) {
	const wire = 5 + 1024
	for _, budget := range []time.Duration{2 * time.Hour, time.Minute} {
		queue := func(_ *server, stream watchServer) error {
			for range 90 {
				if err := stream.Send(&feedv1.Event{Body: strings.Repeat("x", 1024-3)}); err != nil {
					return err
				}
			}
			return nil
		}
		play(t, queue, func(sc *scene) {
			stream := sc.open()
			time.Sleep(time.Second)
			running := sc.running.Load()
			clean := false
			stopped := timed(func() { clean = stopWithin(sc.srv, sc.drain, budget) })
			time.Sleep(time.Hour)
			n, err := end(stream)
			took := <-stopped
			wantTook, events, code := time.Hour+3*lab.Latency, 90, codes.OK
			if budget < time.Hour {
				wantTook, events, code = budget, lab.Window/wire, codes.Unavailable
			}
			if err == io.EOF {
				err = nil
			}
			sc.show(running == 0 && clean == (code == codes.OK) && took == wantTook && n == events && status.Code(err) == code, "a handler sends 90 KiB and returns, its client reads an hour later, budget %v: clean: %v, after %v, the client has %d events and %v, want %v, %d, %v", budget, clean, took, n, status.Code(err), wantTook, events, code)
		})
	}
}

// The table that the README shows: when each way to stop returns, what the client
// has of the stream then, and whether the handler runs on.
func TestEachWayToStopMeetsEachHandler(t *testing.T) {
	handlers := []watchFunc{
		func(*server, watchServer) error { time.Sleep(15 * time.Second); return nil },
		func(s *server, stream watchServer) error {
			select {
			case <-s.draining:
				return status.Error(codes.Aborted, "the status of the handler")
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		},
		func(_ *server, stream watchServer) error {
			<-stream.Context().Done()
			time.Sleep(time.Second) // to tidy up
			return stream.Context().Err()
		},
		func(*server, watchServer) error { time.Sleep(2 * aDay); return nil }, // deaf
	}
	table := "                             done in 15s       drained           context, then 1s  deaf\n"
	for _, way := range []struct {
		name string
		stop func(*scene)
		opts []grpc.ServerOption
	}{
		{"GracefulStop", func(sc *scene) { sc.srv.GracefulStop() }, nil},
		{"Stop", func(sc *scene) { sc.srv.Stop() }, nil},
		{"Stop, WaitForHandlers(true)", func(sc *scene) { sc.srv.Stop() }, []grpc.ServerOption{grpc.WaitForHandlers(true)}},
		{"stopWithin 20s", func(sc *scene) { stopWithin(sc.srv, sc.drain, 20*time.Second) }, options()},
	} {
		table += fmt.Sprintf("%-27s", way.name)
		for _, watch := range handlers {
			play(t, watch, func(sc *scene) {
				stream, got := sc.open(), make(chan string, 1)
				go func() {
					switch _, err := end(stream); status.Convert(err).Message() {
					case "EOF":
						got <- "OK"
					case "the status of the handler":
						got <- "status"
					default:
						got <- "cut"
					}
				}()
				cell := "waits"
				select {
				case took := <-timed(func() { way.stop(sc) }):
					time.Sleep(time.Millisecond)
					runs := map[bool]string{true: ", runs on"}[sc.running.Load() > 0]
					cell = fmt.Sprint(took.Round(time.Second/10), " ", <-got, runs)
				case <-time.After(aDay):
				}
				table += fmt.Sprintf("  %-16s", cell)
				time.Sleep(2 * aDay) // no handler runs on
			}, way.opts...)
		}
		table = strings.TrimRight(table, " ") + "\n"
	}
	t.Log("\n" + table)
	lab.Golden(t, "ways.txt", table)
}

// server.go, stop: serveWG.Wait comes before all else but the listeners, and
// counts each handshake (Serve), which ends after the ConnectionTimeout.
func TestAClientThatDoesNotShakeHandsHoldsUpBoth(t *testing.T) {
	for _, limit := range []time.Duration{120 * time.Second, 5 * time.Second} {
		for _, graceful := range []bool{true, false} {
			var opts []grpc.ServerOption
			if limit == 5*time.Second {
				opts = options()
			}
			opts = append(opts, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: time.Minute}))
			play(t, (*server).watchUntilDrained, func(sc *scene) {
				slow := sc.link.Dial(grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Hour}))
				sc.open()
				time.Sleep(2 * time.Minute) // the slow one is idle, and closed
				slow.Connect()
				time.Sleep(roundTrip + time.Millisecond)
				sc.link.Blackhole() // its greeting is on the way
				sc.link.Mark()
				start, what := time.Now(), "Stop cuts the stream beside it"
				var took time.Duration
				if graceful {
					what = "GracefulStop sends its GOAWAY"
					go sc.srv.GracefulStop()
					time.Sleep(10 * time.Minute)
					took = sc.goAways()[0].At
				} else {
					go sc.srv.Stop()
					took = (<-sc.told).Sub(start)
				}
				sc.drain()
				sc.show(took == limit-time.Millisecond, "a connection without a handshake since 1ms, the limit is %v: %s %v later, want a millisecond less than the limit", limit, what, took)
			}, opts...)
		}
	}
}

// http2_server.go, keepalive and getJitter. A new connection is 20 ms old when
// Dial returns.
func TestTheAgeOfAConnectionVariesByATenth(t *testing.T) {
	play(t, (*server).watchUntilTheClientLeaves, func(sc *scene) {
		var conns []*lab.Link
		for range 20 {
			link := sc.NewLink()
			link.Serve(sc, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Minute}))
			link.Dial()
			conns = append(conns, link)
		}
		time.Sleep(70 * time.Second)
		var ages []time.Duration
		for _, link := range conns {
			ages = append(ages, link.Frames()[0].At)
		}
		slices.Sort(ages)
		first, last := ages[0], ages[19]
		sc.show(first < last && first > 53900*time.Millisecond && last < 66*time.Second, "20 connections, MaxConnectionAge 1m: the first GOAWAY after %v, the last one after %v, want them apart, and within 54s to 66s", first.Round(time.Second/10), last.Round(time.Second/10))
	})
}

// http2_server.go, keepalive: the age is a Drain, and the grace ends in a
// closeConnection, a second after which NewServerTransport closes.
func TestTheAgeEndsNoStreamAndTheGraceCutsAll(t *testing.T) {
	const grace = 10 * time.Second
	for _, tt := range []struct {
		what  string
		grace time.Duration
		says  string
	}{
		{"no grace", 0, "context deadline exceeded"},
		{"a grace of 10s", grace, `closing transport due to: connection error: desc = "error reading from server: EOF", received prior goaway: code: NO_ERROR, debug data: "max_age"`},
	} {
		play(t, (*server).watchUntilTheClientLeaves, func(sc *scene) {
			parent, start := sc.ctx, time.Now()
			ctx, cancel := context.WithTimeout(parent, time.Hour)
			defer cancel()
			sc.ctx = ctx
			_, err := end(sc.open())
			ended := time.Since(start)
			aged := sc.goAways()[0].At
			want := time.Hour - aged
			if tt.grace > 0 {
				want = grace + time.Second + lab.Latency
			}
			sc.show(aged > 53*time.Second && aged < 67*time.Second && ended-aged == want && status.Convert(err).Message() == tt.says, "MaxConnectionAge 1m, %s: a GOAWAY after %v, and %v later the stream ends: %v, want 54s to 66s, %v, %s", tt.what, aged.Round(time.Second), (ended - aged).Round(time.Microsecond), err, want, tt.says)
			sc.ctx = parent
			sc.open()
		}, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Minute, MaxConnectionAgeGrace: tt.grace}))
	}
}

// server.go, KeepaliveParams: an option replaces the whole struct.
func TestTheLastKeepaliveParamsCount(t *testing.T) {
	aged := grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Minute})
	asks := grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Minute})
	for _, tt := range []struct {
		what    string
		opts    []grpc.ServerOption
		goAways int
	}{
		{"the age first", []grpc.ServerOption{aged, asks}, 0},
		{"the age last", []grpc.ServerOption{asks, aged}, 1},
	} {
		play(t, (*server).watchUntilTheClientLeaves, func(sc *scene) {
			parent := sc.ctx
			ctx, cancel := context.WithTimeout(parent, 10*time.Minute)
			defer cancel()
			sc.ctx = ctx
			end(sc.open())
			n := min(len(sc.goAways()), 1) // gRPC announces an end by one, and sets its last stream by another
			sc.show(n == tt.goAways, "two KeepaliveParams, %s: GOAWAY came %d times or more in ten minutes, want %d", tt.what, n, tt.goAways)
			sc.ctx = parent
		}, tt.opts...)
	}
}

// The grace counts from the GOAWAY, a moment before which a stream may begin.
func TestWithOptionsAndALifetimeNoStreamIsCut(t *testing.T) {
	for _, tt := range []struct {
		what  string
		watch watchFunc
		cut   int
	}{
		{"with a lifetime below the grace", (*server).watchUntilDrained, 0},
		{"with none", (*server).watchUntilTheClientLeaves, 100},
	} {
		play(t, tt.watch, func(sc *scene) {
			sc.beat = 20 * time.Minute
			ends := make(chan error, 100)
			for range cap(ends) {
				time.Sleep(time.Minute)
				go func() {
					stream, err := sc.client.Watch(sc.ctx, &feedv1.WatchRequest{}, grpc.WaitForReady(true))
					if err == nil {
						_, err = end(stream)
					}
					ends <- err
				}()
			}
			conns, cut := map[int]bool{}, 0
			for range cap(ends) {
				if status.Convert(<-ends).Message() != "long enough, come back" {
					cut++
				}
			}
			for _, f := range sc.link.Frames() {
				conns[f.Conn] = true
			}
			sc.show(cut == tt.cut && len(conns) > 2, "handlers %s: of 100 streams, one begun each minute, %d were cut, over more than 2 connections: %v, want %d", tt.what, cut, len(conns) > 2, tt.cut)
		}, options()...)
	}
}

// internal/transport/handler_server.go: Drain is Close, which cancels the stream.
func TestGracefulStopCutsTheStreamsOfServeHTTPOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		must(l, err)
		srv := grpc.NewServer()
		feedv1.RegisterFeedServiceServer(srv, newServer("old", time.Minute, (*server).watchUntilTheClientLeaves))
		var h2c http.Protocols
		h2c.SetUnencryptedHTTP2(true)
		web := &http.Server{Handler: srv, Protocols: &h2c}
		go web.Serve(lis)
		defer web.Close()
		var addr atomic.Value
		addr.Store(lis.Addr().String())
		conn, err := connect(&addr)
		must(l, err)
		defer conn.Close()
		stream, err := feedv1.NewFeedServiceClient(conn).Watch(l.Context(), &feedv1.WatchRequest{})
		must(l, err)
		_, err = stream.Recv()
		must(l, err)
		srv.GracefulStop() // returns, although the handler would wait
		if _, err = stream.Recv(); status.Code(err) != codes.Internal || status.Convert(err).Message() != "server closed the stream without sending trailers" {
			l.Errorf("GracefulStop behind ServeHTTP: the client has %v, want Internal", err)
		}
		l.Logf("GracefulStop behind ServeHTTP: the client has %v", err)
	})
}

// isServer is the variable by which this binary knows that it is a server.
const isServer = "DRAINED_SERVER"

func TestMain(m *testing.M) {
	if name := os.Getenv(isServer); name != "" {
		if err := serveUntilSignal(name); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// serveUntilSignal is what the main function of a server does.
func serveUntilSignal(name string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	go func() { // its parent has died, or has no such signal: Windows
		io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	s := newServer(name, time.Millisecond, (*server).watchUntilDrained)
	srv, addr, err := listen(s)
	if err != nil {
		return err
	}
	fmt.Println(addr) // to its parent
	<-ctx.Done()
	stop() // the next signal ends the process at once
	if !stopWithin(srv, s.drain, 5*time.Second) {
		return errors.New("some streams were cut")
	}
	return nil
}

// A process is a server of its own: end tells it to stop, and exit waits for that.
func process(l *lab.Lab, name string) (addr string, end func(), exit func() error) {
	self, err := os.Executable()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), isServer+"="+name)
	stdin, errIn := cmd.StdinPipe()
	stdout, errOut := cmd.StdoutPipe()
	must(l, cmp.Or(err, errIn, errOut, cmd.Start()))
	end = sync.OnceFunc(func() { // a second SIGTERM would kill it
		if runtime.GOOS == "windows" {
			stdin.Close()
		} else {
			cmd.Process.Signal(syscall.SIGTERM)
		}
	})
	exit = sync.OnceValue(func() error { end(); return cmd.Wait() })
	addr, err = bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		l.Fatalf("the %s server said %q: %v, and ended: %v", name, addr, err, exit())
	}
	return strings.TrimSpace(addr), end, exit
}

// A rolling restart: the new process is there before the old one is told to go.
func TestAProcessIsReplacedAndItsClientGoesOnOverTCP(t *testing.T) {
	lab.OverTCP(t, func(l *lab.Lab) {
		oldAddr, endOld, oldExit := process(l, "old")
		defer oldExit()
		newAddr, _, newExit := process(l, "new")
		defer newExit()
		var addr atomic.Value
		addr.Store(oldAddr)
		conn, err := connect(&addr)
		must(l, err)
		defer conn.Close()
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		var ended []string
		count := map[string]int{}
		err = follow(ctx, feedv1.NewFeedServiceClient(conn), 10*time.Millisecond, func(ev *feedv1.Event) {
			count[ev.GetBody()]++
			switch {
			case count["old"] == 3 && count["new"] == 0:
				addr.Store(newAddr)
				endOld()
			case count["new"] == 3:
				cancel()
			}
		}, func(err error) { ended = append(ended, err.Error()) })
		if status.Code(err) != codes.Canceled || count["old"] < 3 || count["new"] < 3 {
			l.Fatalf("the client has %v events, and then %v, want 3 of each at least, and its own cancel", count, err)
		}
		const goingAway = "rpc error: code = Unavailable desc = old is going away, come back"
		if ended = slices.Compact(ended); !slices.Equal(ended, []string{goingAway}) {
			l.Errorf("the client's streams ended with %q, want %q", ended, goingAway)
		}
		if err := oldExit(); err != nil {
			l.Errorf("the old server, after SIGTERM: %v, want exit code 0", err)
		}
		l.Logf("SIGTERM to the old process: its client has %q, comes back to the new one, and the old one exits with 0", ended)
	})
}
