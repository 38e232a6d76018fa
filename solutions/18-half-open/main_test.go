package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/grpclog"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// TestMain silences gRPC, which prints a line for each GOAWAY of some kinds.
func TestMain(m *testing.M) {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(io.Discard, io.Discard, io.Discard))
	os.Exit(m.Run())
}

// These are what README.md allows.
const (
	limit     = 30 * time.Second
	roundTrip = 2 * time.Second
	interval  = 10 * time.Second // of a side's PINGs
	lifetime  = 30 * time.Hour   // certain to end a connection with a MaxConnectionAge up to 27h
)

// theirDialOptions is what the clients of another team connect with.
func theirDialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithIdleTimeout(0), grpc.WithKeepaliveParams(keepalive.ClientParameters{
		Time: 10 * time.Second, Timeout: 20 * time.Second, PermitWithoutStream: true,
	})}
}

// theirServerOptions is what the servers of another team are started with.
func theirServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
		MinTime: 15 * time.Second, PermitWithoutStream: true,
	})}
}

// A pair is who sits at the two ends of a connection.
type pair struct {
	name   string
	server func() []grpc.ServerOption
	client func() []grpc.DialOption
}

func yours() pair { return pair{"your serverOptions and dialOptions", serverOptions, dialOptions} }

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// A scene is what goes on over a connection.
type scene struct {
	what  string
	watch func(watchServer) error // the handler; nil if there is no stream
	reads bool                    // the client does
}

func silent() scene {
	return scene{"a silent stream", func(stream watchServer) error {
		<-stream.Context().Done()
		return stream.Context().Err()
	}, true}
}

func noStream() scene { return scene{what: "no stream"} }

// each is a handler that sends an event of a size after each interval.
func each(interval time.Duration, size int) func(watchServer) error {
	return func(stream watchServer) error {
		for {
			select {
			case <-time.After(interval):
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
			if err := stream.Send(&feedv1.Event{Body: strings.Repeat("x", size)}); err != nil {
				return err
			}
		}
	}
}

func scenes() []scene {
	return []scene{
		silent(),
		{"an event each 7.3s", each(7300*time.Millisecond, 10), true},
		{"an event each 45.7s", each(45700*time.Millisecond, 10), true},
		{"a handler blocked in Send", each(time.Millisecond, 1000), false},
		noStream(),
	}
}

// A bench is a connection at work.
type bench struct {
	*lab.Link
	l      *lab.Lab
	what   string
	client feedv1.FeedServiceClient
	start  time.Time
	closed [2]chan time.Time // at the client, at the server
	ended  chan time.Time    // when a handler has returned
	cancel func()            // ends the stream
	look   chan struct{}     // closed when a client that does not read may
	status chan error        // of the stream
}

// on runs body on a connection for each scene, until one fails.
func on(t *testing.T, p pair, scenes []scene, body func(*bench), opts ...lab.LinkOption) {
	t.Helper()
	for _, s := range scenes {
		if t.Failed() {
			return
		}
		lab.Run(t, func(l *lab.Lab) {
			b := newBench(l, p, s, opts...)
			body(b)
			b.cancel()
		}, lab.Lasts(36*time.Hour))
	}
}

func newBench(l *lab.Lab, p pair, s scene, opts ...lab.LinkOption) *bench {
	b := &bench{
		Link: l.NewLink(opts...), l: l, what: fmt.Sprintf("with %s, and %s, the connection", p.name, s.what),
		closed: [2]chan time.Time{make(chan time.Time, 1000), make(chan time.Time, 1000)},
		ended:  make(chan time.Time, 1000),
		look:   make(chan struct{}), status: make(chan error, 1),
	}
	b.Serve(service{watch: s.watch, ended: b.ended}, append(p.server(), grpc.StatsHandler(noting{at: b.closed[lab.Server]}))...)
	late := time.AfterFunc(15*time.Second, func() {
		l.Errorf("with %s, there was no connection within 15s, over a healthy network", p.name)
	})
	b.client = feedv1.NewFeedServiceClient(b.Dial(append(p.client(), grpc.WithStatsHandler(noting{at: b.closed[lab.Client]}))...))
	late.Stop()
	b.start = time.Now()
	ctx, cancel := context.WithCancel(l.Context())
	b.cancel = cancel
	if s.watch == nil {
		return b
	}
	stream, err := b.client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		l.Fatalf("%s: Watch returned %v", b.what, err)
	}
	go func() {
		if !s.reads {
			select {
			case <-b.look:
			case <-ctx.Done():
			}
		}
		for err == nil {
			_, err = stream.Recv()
		}
		b.status <- err
	}()
	return b
}

// service is a feed with a Publish, and with the scene's Watch.
type service struct {
	feed
	watch func(watchServer) error
	ended chan<- time.Time
}

func (s service) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	defer func() { s.ended <- time.Now() }()
	return s.watch(stream)
}

// noting is a stats.Handler that notes when connections end.
type noting struct {
	closing
	at chan<- time.Time
}

func (n noting) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnEnd); ok {
		n.at <- time.Now()
	}
}

// lives lets time pass over a healthy network, after which the connection and
// its stream must still be there.
func (b *bench) lives(d time.Duration) {
	b.l.Helper()
	time.Sleep(d)
	const itsStream = "its stream"
	var why string
	var at time.Time
	for what, c := range map[string]chan time.Time{
		"the client closed it": b.closed[lab.Client], "the server closed it": b.closed[lab.Server], itsStream: b.ended,
	} {
		if len(c) > 0 {
			if t := <-c; at.IsZero() || t.Before(at) || t.Equal(at) && what != itsStream {
				why, at = what, t
			}
		}
	}
	if at.IsZero() {
		b.counts(d)
		return
	}
	after := at.Sub(b.start).Round(time.Second)
	if why == itsStream {
		close(b.look)
		var err error
		select {
		case err = <-b.status:
		case <-time.After(time.Minute):
		}
		b.cancel()
		b.l.Fatalf("%s lost its stream, over a healthy network: after %v it ended with %v", b.what, after, err)
	}
	for _, f := range b.Frames() {
		if f.Type == "GOAWAY" && f.From == lab.Server {
			why = "the server said GOAWAY " + f.Text
			break
		}
	}
	b.cancel()
	b.l.Fatalf("%s was not kept, over a healthy network: after %v %s", b.what, after, why)
}

// counts wants no more PINGs from a side in the time d than README.md allows. The
// lab fixes the windows, so that gRPC sends none to measure the bandwidth.
func (b *bench) counts(d time.Duration) {
	b.l.Helper()
	var n [2]int
	for _, f := range b.Frames() {
		if f.Type == "PING" && f.Text != "ACK" {
			n[f.From]++
		}
	}
	for side, n := range n {
		if most := int(d / interval); n > most {
			b.cancel()
			b.l.Fatalf("%s saw %d PINGs by the %v in %v, want at most one in %v", b.what, n, lab.Side(side), d, interval)
		}
	}
}

// pull makes a call, so that both sides have heard of each other right now,
// pulls the cable, and wants the sides to notice.
func (b *bench) pull(sides ...lab.Side) {
	b.l.Helper()
	if _, err := b.client.Publish(b.l.Context(), &feedv1.PublishRequest{}); err != nil {
		b.cancel()
		b.l.Fatalf("%s failed a call: %v", b.what, err)
	}
	time.Sleep(time.Millisecond)
	b.Blackhole()
	pulled := time.Now()
	b.Mark()
	time.Sleep(3 * time.Hour)
	for _, side := range sides {
		took := "did not notice in 3h"
		if len(b.closed[side]) > 0 {
			d := (<-b.closed[side]).Sub(pulled)
			if d <= limit {
				continue
			}
			took = fmt.Sprintf("noticed only after %v", d.Round(10*time.Millisecond))
			if !slices.ContainsFunc(b.Frames(), func(f lab.Frame) bool { return f.Type == "PING" && f.From == side }) {
				took = fmt.Sprintf("did not ask, and closed it only after %v", d.Round(10*time.Millisecond))
				if side == lab.Client {
					took += " for want of calls"
				}
			}
		}
		b.cancel()
		b.l.Fatalf("%s lost its cable, and the %v %s, want it within %v", b.what, side, took, limit)
	}
}

func TestTheServerNoticesADeadClient(t *testing.T) {
	on(t, yours(), scenes(), func(b *bench) {
		time.Sleep(15 * time.Second)
		b.pull(lab.Server)
	})
}

func TestTheClientNoticesADeadServer(t *testing.T) {
	on(t, yours(), scenes(), func(b *bench) {
		time.Sleep(15 * time.Second)
		b.pull(lab.Client)
	})
}

func TestAHealthyConnectionLivesADay(t *testing.T) {
	on(t, yours(), scenes(), func(b *bench) {
		b.lives(time.Hour)
		b.pull(lab.Client, lab.Server)
	})
	on(t, yours(), []scene{silent(), noStream()}, func(b *bench) { b.lives(lifetime) })
}

func TestASlowNetworkIsHealthy(t *testing.T) { slow(t, yours()) }

func slow(t *testing.T, p pair) {
	t.Helper()
	on(t, p, scenes(), func(b *bench) {
		b.what = fmt.Sprintf("at a round trip of %v, ", roundTrip) + b.what
		b.lives(time.Hour)
	}, lab.WithLatency(roundTrip/2-137*time.Microsecond))
}

func TestTheirClientLivesAtYourServer(t *testing.T) {
	p := pair{"your serverOptions, their client", serverOptions, theirDialOptions}
	on(t, p, scenes(), func(b *bench) { b.lives(time.Hour) })
}

func TestYourClientLivesAtTheirServer(t *testing.T) {
	p := pair{"your dialOptions, their server", theirServerOptions, dialOptions}
	on(t, p, scenes(), func(b *bench) {
		b.lives(time.Hour)
		b.pull(lab.Client)
	})
	slow(t, p) // your server's PINGs may hide your client's impatience
}
