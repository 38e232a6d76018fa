// A stream that has broken stays broken: gRPC dials a new connection and opens
// no new stream on it. That is for the caller, who must also wait before each
// attempt, longer each time, and not the same as all the others.
//
// The program follows a topic while its server is killed and started again. Then
// it counts the attempts of two ways to wait, at a server that refuses.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// dialOptions are for a client that follows for days.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithConnectParams(grpc.ConnectParams{
			// All four, as zero means zero. MaxDelay is 2 minutes by default,
			// and attempts of yours between two dials fail without one.
			Backoff: backoff.Config{BaseDelay: time.Second, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			// How long a dial that nobody answers keeps an attempt waiting: 20 s by default.
			MinConnectTimeout: 5 * time.Second,
		}),
		// Or Recv never learns that the network is dead (chapter 18).
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}
}

// serverOptions are for its server.
func serverOptions() []grpc.ServerOption {
	// Allows these pings. By default one in 5 minutes is allowed.
	return []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 15 * time.Second})}
}

// A follower opens a stream again and again.
type follower struct {
	client      feedv1.FeedServiceClient
	first, most time.Duration                    // the waits, without jitter
	random      func() float64                   // from 0 to 1, and not the same for all clients
	waits       func(err error, d time.Duration) // is told of each wait, and why
}

// followResettingAtTheOpening takes an open stream for progress. But it is open
// before the server has heard of it: the waits never grow.
func (f follower) followResettingAtTheOpening(ctx context.Context, topic string, handle func(*feedv1.Event)) error {
	next := f.first
	for {
		stream, err := f.client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		if err == nil {
			next = f.first
		}
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				handle(ev)
			}
		}
		if err := f.wait(ctx, err, next); err != nil {
			return err
		}
		next = min(2*next, f.most)
	}
}

// follow begins with the shortest wait again when an event has been handled. It
// returns when another attempt cannot help, or when ctx ends.
func (f follower) follow(ctx context.Context, topic string, handle func(*feedv1.Event)) error {
	next := f.first
	for {
		stream, err := f.client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		// Neither an open stream nor a header is progress: an event that is handled is.
		for err == nil && ctx.Err() == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				handle(ev)
				next = f.first
			}
		}
		if err := f.wait(ctx, err, next); err != nil {
			return err
		}
		next = min(2*next, f.most)
	}
}

// wait waits between half and the whole of d after an attempt has ended with
// err. It returns what ends the following.
func (f follower) wait(ctx context.Context, err error, d time.Duration) error {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unimplemented:
		return err // the same request gets the same answer
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d = d/2 + time.Duration(f.random()*float64(d/2))
	f.waits(err, d)
	return pause(ctx, d)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// server says in each event which life it has. Life 0 refuses.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	life     int
	each     time.Duration
	attempts atomic.Int32
}

func (s *server) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	s.attempts.Add(1)
	if s.life == 0 {
		return status.Error(codes.Unavailable, "warming up")
	}
	for n := 1; ; n++ {
		if err := pause(stream.Context(), s.each); err != nil {
			return err
		}
		if err := stream.Send(&feedv1.Event{Id: fmt.Sprintf("life %d, event %d", s.life, n)}); err != nil {
			return err
		}
	}
}

// serve serves on a port of its own, and returns what kills the server.
func (s *server) serve(at *address) (func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return func() {}, fmt.Errorf("listen: %w", err)
	}
	at.now.Store(lis.Addr().String())
	srv := grpc.NewServer(append(serverOptions(), grpc.WaitForHandlers(true))...)
	feedv1.RegisterFeedServiceServer(srv, s)
	go srv.Serve(lis) // returns when srv is stopped
	return srv.Stop, nil
}

// An address is where the server is now, as a name service would know it.
type address struct{ now atomic.Value }

func (a *address) dial(ctx context.Context, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", a.now.Load().(string))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. The first wait is half of pace.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	unit := max(pace/2, time.Millisecond)
	at := new(address)
	kill, err := (&server{life: 1, each: unit}).serve(at)
	defer func() { kill() }()
	if err != nil {
		return err
	}
	short := backoff.Config{BaseDelay: unit / 4, Multiplier: 1, MaxDelay: unit / 4} // a story cannot wait for a second
	conn, err := grpc.NewClient("passthrough:///feed", append(dialOptions(), grpc.WithContextDialer(at.dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: short, MinConnectTimeout: time.Second}))...)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	f := follower{feedv1.NewFeedServiceClient(conn), unit, 16 * unit, rand.Float64, func(error, time.Duration) {}}

	fmt.Fprintln(w, "A client that follows, and a server that is killed and started again:")
	if kill, err = f.overARestart(ctx, at, kill, w); err != nil {
		return err
	}
	kill()
	refusing := &server{}
	if kill, err = refusing.serve(at); err != nil {
		return err
	}
	fmt.Fprintln(w, "A server that refuses every stream:")
	for _, way := range []struct {
		name   string
		follow func(follower, context.Context, string, func(*feedv1.Event)) error
	}{
		{"followResettingAtTheOpening", follower.followResettingAtTheOpening},
		{"follow", follower.follow},
	} {
		conn.ResetConnectBackoff() // or the channel waits, because of the server that was there before
		conn.Connect()
		before := refusing.attempts.Load()
		until, cancel := context.WithTimeout(ctx, 15*unit)
		err := way.follow(f, until, "deploys", func(*feedv1.Event) {})
		cancel()
		if ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		fmt.Fprintf(w, "  %s: %d attempts in %v\n", way.name, refusing.attempts.Load()-before, 15*unit)
	}
	return nil
}

// overARestart follows a topic over the end of its server, until the next server
// has sent two events. It returns what kills that one.
func (f follower) overARestart(ctx context.Context, at *address, kill func(), w io.Writer) (func(), error) {
	until, cancel := context.WithCancel(ctx)
	defer cancel()
	waits, start := 0, time.Now()
	say := func(format string, args ...any) {
		fmt.Fprintf(w, "%6v  %s\n", time.Since(start).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
	var failed error
	f.waits = func(err error, d time.Duration) {
		say("%v: %s; waits %v", status.Code(err), status.Convert(err).Message(), d.Round(time.Millisecond))
		if waits++; waits == 3 {
			say("the server is started again")
			if kill, failed = (&server{life: 2, each: f.first}).serve(at); failed != nil {
				cancel()
			}
		}
	}
	err := f.follow(until, "deploys", func(ev *feedv1.Event) {
		say("%s", ev.GetId())
		switch ev.GetId() {
		case "life 1, event 2":
			say("the server is killed")
			kill()
		case "life 2, event 2":
			cancel()
		}
	})
	if failed == nil && ctx.Err() == nil && err == context.Canceled {
		return kill, nil // that was the last event
	}
	return kill, cmp.Or(failed, err)
}
