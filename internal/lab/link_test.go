package lab

import (
	"context"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// chat sends one line and returns what comes back.
func chat(ctx context.Context, client feedv1.FeedServiceClient, text string) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return "", err
	}
	if err := stream.Send(line(text)); err != nil {
		return "", err
	}
	m, err := stream.Recv()
	return m.GetText(), err
}

func TestAReplyTakesTwiceTheLatency(t *testing.T) {
	for _, latency := range []time.Duration{Latency, 100 * time.Millisecond, 0} {
		Run(t, func(l *Lab) {
			client, _ := l.Connect(service{chat: echo}, WithLatency(latency))
			start := time.Now()
			if got, err := chat(l.Context(), client, "hello"); got != "hello" || err != nil {
				l.Fatalf("got %q, %v", got, err)
			}
			if took := time.Since(start); took != 2*latency {
				l.Errorf("the reply took %v, want %v", took, 2*latency)
			}
		})
	}
}

func TestBandwidthDelaysWhatIsLarge(t *testing.T) {
	Run(t, func(l *Lab) {
		got := make(chan time.Time, 1)
		client, k := l.Connect(service{chat: func(s chatServer) error {
			_, err := s.Recv()
			got <- time.Now()
			return err
		}}, WithBandwidth(10_000))
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := client.Chat(ctx)
		if err != nil {
			l.Fatal(err)
		}
		start := time.Now()
		if err := stream.Send(sized(20_000)); err != nil {
			l.Fatal(err)
		}
		arrived := (<-got).Sub(start)
		bytes := 0
		for _, f := range k.Frames() {
			if f.From == Client && f.Stream > 0 {
				bytes += 9 + f.Length
			}
		}
		if want := time.Duration(bytes)*time.Second/10_000 + Latency; arrived.Round(time.Microsecond) != want.Round(time.Microsecond) {
			l.Errorf("%d B arrived after %v, want %v", bytes, arrived, want)
		}
	})
}

func TestACutResetsAndRefusesUntilHealed(t *testing.T) {
	Run(t, func(l *Lab) {
		client, k := l.Connect(service{chat: echo})
		time.AfterFunc(time.Second, k.Cut)
		start := l.Elapsed()
		stream, err := client.Chat(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		if _, err := stream.Recv(); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "connection reset by peer") {
			l.Errorf("a pending Recv returned %v, want Unavailable and a reset", err)
		}
		if took := l.Elapsed() - start; took != time.Second {
			l.Errorf("the client knew after %v, want at once", took-time.Second)
		}
		if _, err := chat(l.Context(), client, "anyone?"); status.Code(err) != codes.Unavailable {
			l.Errorf("while cut an RPC returned %v, want Unavailable", err)
		}
		k.Heal()
		time.Sleep(time.Minute) // the channel's own backoff
		if got, err := chat(l.Context(), client, "hello"); got != "hello" || err != nil {
			l.Errorf("after the cut was healed an RPC returned %q, %v", got, err)
		}
	})
}

func TestABlackHoleTellsNobodyAndLosesNothing(t *testing.T) {
	Run(t, func(l *Lab) {
		client, k := l.Connect(service{chat: echo})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := client.Chat(ctx)
		if err != nil {
			l.Fatal(err)
		}
		stream.Send(line("on the way"))
		k.Blackhole()
		stream.Send(line("into the hole"))
		time.AfterFunc(time.Hour, k.Heal)
		start := time.Now()
		for _, want := range []string{"on the way", "into the hole"} {
			if m, err := stream.Recv(); err != nil || m.GetText() != want {
				l.Fatalf("Recv returned %v, %v, want %q", m, err, want)
			}
		}
		if took := time.Since(start); took != time.Hour+2*Latency {
			l.Errorf("the replies came after %v, want an hour and a round trip", took)
		}
	}, Lasts(2*time.Hour))
}

func TestDialsWaitInABlackHole(t *testing.T) {
	Run(t, func(l *Lab) {
		client, k := l.Connect(service{chat: echo})
		k.Cut()
		time.Sleep(time.Millisecond) // both ends notice
		k.Blackhole()
		ctx, cancel := context.WithTimeout(l.Context(), time.Second)
		defer cancel()
		if _, err := chat(ctx, client, "hello"); status.Code(err) != codes.DeadlineExceeded {
			l.Errorf("got %v, want DeadlineExceeded", err)
		}
		k.Heal()
	})
}

func TestAServerCanBeReplaced(t *testing.T) {
	Run(t, func(l *Lab) {
		k := l.NewLink()
		first := k.Serve(service{chat: echo})
		client := feedv1.NewFeedServiceClient(k.Dial())
		first.Stop()
		if _, err := chat(l.Context(), client, "anyone?"); status.Code(err) != codes.Unavailable {
			l.Errorf("without a server an RPC returned %v, want Unavailable", err)
		}
		k.Serve(service{chat: echo})
		time.Sleep(time.Minute)
		if got, err := chat(l.Context(), client, "hello"); got != "hello" || err != nil {
			l.Errorf("with the new server an RPC returned %q, %v", got, err)
		}
	})
}

// What a right answer does, and the leak check must let pass.
func TestRightAnswersAreNotCalledLeaks(t *testing.T) {
	for name, body := range map[string]func(*Lab, feedv1.FeedServiceClient, *Link){
		"one stream, cancelled": func(l *Lab, client feedv1.FeedServiceClient, _ *Link) { chat(l.Context(), client, "hello") },
		"idle for an hour":      func(*Lab, feedv1.FeedServiceClient, *Link) { time.Sleep(time.Hour) },
		"idle, then used again": func(l *Lab, client feedv1.FeedServiceClient, _ *Link) {
			time.Sleep(time.Hour)
			chat(l.Context(), client, "hello")
		},
		"reconnected": func(l *Lab, client feedv1.FeedServiceClient, k *Link) {
			k.Cut()
			k.Heal()
			time.Sleep(time.Minute)
			if _, err := chat(l.Context(), client, "hello"); err != nil {
				l.Error(err)
			}
		},
		"reconnecting": func(l *Lab, client feedv1.FeedServiceClient, k *Link) {
			k.Cut()
			chat(l.Context(), client, "hello")
		},
		"on a connection that is too old": func(l *Lab, _ feedv1.FeedServiceClient, k *Link) {
			aging := l.NewLink()
			aging.Serve(service{chat: echo}, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: time.Minute}))
			client := feedv1.NewFeedServiceClient(aging.Dial())
			for range 5 {
				time.Sleep(time.Minute)
				if _, err := chat(l.Context(), client, "hello"); err != nil {
					l.Error(err)
				}
			}
		},
		"over a slow link": func(l *Lab, _ feedv1.FeedServiceClient, k *Link) {
			client, _ := l.Connect(service{chat: echo}, WithLatency(2*time.Second))
			chat(l.Context(), client, "hello")
		},
		"opened twice by an interceptor": func(l *Lab, _ feedv1.FeedServiceClient, k *Link) {
			client := feedv1.NewFeedServiceClient(k.Dial(grpc.WithChainStreamInterceptor(openTwice)))
			chat(l.Context(), client, "hello")
		},
		"both directions in an errgroup": func(l *Lab, client feedv1.FeedServiceClient, _ *Link) {
			g, ctx := errgroup.WithContext(l.Context())
			stream, err := client.Chat(ctx)
			if err != nil {
				l.Fatal(err)
			}
			g.Go(func() error { defer stream.CloseSend(); return stream.Send(line("hello")) })
			g.Go(func() error {
				for {
					if _, err := stream.Recv(); err != nil {
						return err
					}
				}
			})
			if err := g.Wait(); err != io.EOF {
				l.Error(err)
			}
		},
		"a goroutine that ends in time": func(l *Lab, _ feedv1.FeedServiceClient, _ *Link) {
			go time.Sleep(grace / 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			Run(t, func(l *Lab) {
				client, k := l.Connect(service{chat: echo})
				body(l, client, k)
			}, Lasts(3*time.Hour))
		})
	}
}

// The trap that made the lab count RPCs in interceptors: a stats.Handler sees
// an attempt begin that never ends when the opening of a stream is retried.
func TestAStatsHandlerMiscountsRetriedOpenings(t *testing.T) {
	Run(t, func(l *Lab) {
		k := l.NewLink()
		k.Serve(service{chat: untilCancelled}, grpc.MaxConcurrentStreams(1))
		var attempts attempts
		client := feedv1.NewFeedServiceClient(k.Dial(grpc.WithStatsHandler(&attempts)))
		ctx, cancel := context.WithCancel(l.Context())
		if _, err := client.Chat(ctx); err != nil {
			l.Fatal(err)
		}
		// The second stream waits for the first one's place when the
		// connection is lost, and opens on the next connection.
		time.AfterFunc(time.Second, func() { k.Cut(); k.Heal() })
		if _, err := client.Chat(ctx); err != nil {
			l.Fatal(err)
		}
		cancel()
		if leaks := l.Leaks(); len(leaks) > 0 {
			l.Errorf("leaks: %q", leaks)
		}
		if begun, ended := attempts.begun.Load(), attempts.ended.Load(); begun != ended+1 || len(l.RPCs()) != 2 {
			l.Errorf("%d RPCs; the stats handler saw %d begin and %d end; want one that never ends", len(l.RPCs()), begun, ended)
		}
	})
}

// attempts is a stats.Handler that counts.
type attempts struct{ begun, ended atomic.Int32 }

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

// An ignore that no healthy connection needs would hide a leak.
func TestEveryIgnoredTransportGoroutineIsNeeded(t *testing.T) {
	for i := range transport() {
		Run(t, func(l *Lab) {
			alive := l.NewLink()
			alive.Serve(service{chat: echo}, grpc.NumStreamWorkers(2))
			alive.Dial(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: time.Hour}))
			_, refusing := l.Connect(service{chat: echo})
			refusing.Cut()
			_, silent := l.Connect(service{chat: echo})
			silent.Cut()
			time.Sleep(time.Millisecond) // the channels notice and go idle
			silent.Heal()
			l.conns[1].Connect()
			l.conns[2].Connect()
			time.Sleep(2*Latency + time.Millisecond)
			silent.Blackhole()                 // during the handshake
			time.Sleep(100 * time.Millisecond) // the other dial is refused, its backoff runs
			if left, _ := l.left(append(transport(), l.baseline)...); len(left) > 0 {
				l.Errorf("healthy connections are called leaks: %q", left)
			}
			others := append(slices.Delete(transport(), i, i+1), l.baseline)
			if goleak.Find(others...) == nil {
				l.Errorf("option %d of transport ignores nothing", i)
			}
		})
	}
}

// A handler may run on a goroutine that otherwise belongs to the server.
func TestADeafHandlerOnAWorkerIsALeak(t *testing.T) {
	Run(t, func(l *Lab) {
		release := make(chan bool)
		link := l.NewLink()
		link.Serve(service{chat: func(chatServer) error { <-release; return nil }}, grpc.NumStreamWorkers(2))
		ctx, cancel := context.WithCancel(l.Context())
		if _, err := feedv1.NewFeedServiceClient(link.Dial()).Chat(ctx); err != nil {
			l.Fatal(err)
		}
		time.Sleep(time.Second)
		cancel()
		if leaks := strings.Join(l.Leaks(), "; "); !strings.Contains(leaks, "the server's Chat handler still runs") {
			l.Errorf("the lab finds %q, want the handler", leaks)
		}
		close(release)
	})
}

func TestACutEndsABlackHole(t *testing.T) {
	Run(t, func(l *Lab) {
		client, k := l.Connect(service{chat: echo})
		k.Blackhole()
		k.Cut()
		k.Heal()
		time.Sleep(time.Minute)
		if got, err := chat(l.Context(), client, "hello"); got != "hello" || err != nil {
			l.Errorf("an RPC returned %q, %v", got, err)
		}
	})
}

func TestAClosedConnectionIsNotHeardOfThroughABlackHole(t *testing.T) {
	Run(t, func(l *Lab) {
		var ended atomic.Int64 // in the lab's time
		k := l.NewLink()
		k.Serve(service{chat: func(s chatServer) error {
			for range time.Tick(time.Second) {
				if err := s.Send(line("tick")); err != nil {
					ended.Store(int64(l.Elapsed()))
					return err
				}
			}
			return nil
		}})
		conn := k.Dial()
		start := l.Elapsed()
		if _, err := feedv1.NewFeedServiceClient(conn).Chat(context.Background()); err != nil {
			l.Fatal(err)
		}
		time.Sleep(3500 * time.Millisecond)
		k.Blackhole()
		conn.Close()
		time.Sleep(time.Minute)
		if at := time.Duration(ended.Load()); at != 0 {
			l.Errorf("the handler learned of the end after %v, through a black hole", at-start)
		}
		k.Heal()
		time.Sleep(2 * time.Second)
		if time.Duration(ended.Load()) < start+time.Minute {
			l.Errorf("the handler has not learned of the end from what arrived after the black hole")
		}
	})
}

func TestBandwidthIsCountedOnceAfterABlackHole(t *testing.T) {
	Run(t, func(l *Lab) {
		got := make(chan time.Time, 1)
		client, k := l.Connect(service{chat: func(s chatServer) error {
			_, err := s.Recv()
			got <- time.Now()
			return err
		}}, WithBandwidth(10_000))
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := client.Chat(ctx)
		if err != nil {
			l.Fatal(err)
		}
		stream.Send(sized(20_000))
		time.Sleep(time.Millisecond)
		k.Blackhole()
		start := time.Now()
		k.Heal()
		if took := (<-got).Sub(start).Round(100 * time.Millisecond); took != 2*time.Second {
			l.Errorf("20,000 B at 10,000 B/s arrived after %v", took)
		}
	})
}
