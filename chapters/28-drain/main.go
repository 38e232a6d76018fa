// A server that is told to stop has streams that would live for days.
// GracefulStop waits for them and tells their handlers nothing, Stop cuts them.
// So the server tells its handlers itself, and gives them a budget.
//
// The program stops a server in three ways: by GracefulStop alone, by a drain
// with a replacement beside it, and by a drain with a handler that does not
// listen. A client follows a topic and comes back when it is told to.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type (
	watchServer = grpc.ServerStreamingServer[feedv1.Event]
	watchFunc   = func(*server, watchServer) error
	stopFunc    = func(srv *grpc.Server, drain func(), budget time.Duration) bool
)

// server is a feed with an event each beat. Its name is their body.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	name  string
	beat  time.Duration
	watch watchFunc

	draining chan struct{} // closed by drain: what every handler listens to
	drain    func()        // may be called twice: some send SIGTERM twice
}

func newServer(name string, beat time.Duration, watch watchFunc) *server {
	s := &server{name: name, beat: beat, watch: watch, draining: make(chan struct{})}
	s.drain = sync.OnceFunc(func() { close(s.draining) })
	return s
}

func (s *server) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	if err := stream.Send(&feedv1.Event{Body: s.name}); err != nil {
		return err
	}
	return s.watch(s, stream)
}

// watchUntilTheClientLeaves knows one reason to end. A stop is none.
func (s *server) watchUntilTheClientLeaves(stream watchServer) error {
	for {
		select {
		case <-time.After(s.beat):
			if err := stream.Send(&feedv1.Event{Body: s.name}); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// lifetime is how long a stream may stay on this server.
const lifetime = 30 * time.Minute

// watchUntilDrained also ends when the server is to stop, and when the stream
// has been here for long. Its status tells the client to come back: the topic
// has not ended.
func (s *server) watchUntilDrained(stream watchServer) error {
	enough := time.After(lifetime)
	for {
		select {
		case <-time.After(s.beat):
			if err := stream.Send(&feedv1.Event{Body: s.name}); err != nil {
				return err
			}
		case <-s.draining:
			return status.Error(codes.Unavailable, s.name+" is going away, come back")
		case <-enough:
			return status.Error(codes.Unavailable, "long enough, come back")
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// stopWithin ends srv, and reports whether all streams ended by themselves
// within budget.
func stopWithin(srv *grpc.Server, drain func(), budget time.Duration) bool {
	stopped := make(chan struct{})
	go func() { srv.GracefulStop(); close(stopped) }() // nothing new; returns when all have gone
	drain()                                            // all are told to go
	select {
	case <-stopped:
		return true
	case <-time.After(budget):
		srv.Stop() // cuts those who have not gone
		return false
	}
}

// stopForEver waits for streams that nobody ends. The story gives up after a
// while; a program would not.
func stopForEver(srv *grpc.Server, _ func(), patience time.Duration) bool {
	stopped := make(chan struct{})
	go func() { srv.GracefulStop(); close(stopped) }()
	select {
	case <-stopped:
		return true
	case <-time.After(patience):
		return false
	}
}

// options are a server's whose streams live long.
func options() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.KeepaliveParams(keepalive.ServerParameters{
			// So that a new server gets streams, too. gRPC varies it by a tenth.
			MaxConnectionAge: 30 * time.Minute,
			// Then what is left is cut. More than the lifetime, because a stream
			// may begin a moment before the age is reached.
			MaxConnectionAgeGrace: lifetime + time.Minute,
		}),
		// Less than the budget, as it may hold up GracefulStop and Stop.
		grpc.ConnectionTimeout(5 * time.Second),
		// Not grpc.WaitForHandlers(true): Stop would wait for a deaf handler.
	}
}

// follow hands over events until the topic ends. On Unavailable it comes back,
// to the server that is there then, for which WaitForReady waits. Chapter 29
// says how long to pause, and chapter 30 what is missed meanwhile.
func follow(ctx context.Context, client feedv1.FeedServiceClient, pause time.Duration, handle func(*feedv1.Event), ended func(error)) error {
	for {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys"}, grpc.WaitForReady(true))
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil {
				handle(ev)
			}
		}
		if err == io.EOF {
			return nil
		}
		if status.Code(err) != codes.Unavailable {
			return err
		}
		ended(err)
		wait(ctx, pause)
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second/2); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	var mu sync.Mutex // the client and the server both tell
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil { // else the reader is leaving
			fmt.Fprintf(w, format+"\n", args...)
			wait(ctx, pace)
		}
	}
	beat := max(pace/4, 5*time.Millisecond)
	for _, way := range []struct {
		what  string
		watch watchFunc
		stop  stopFunc
		moves bool // the client, to the new server
	}{
		{"GracefulStop alone", (*server).watchUntilTheClientLeaves, stopForEver, false},
		{"a drain", (*server).watchUntilDrained, stopWithin, true},
		{"a drain, and a handler that does not listen", (*server).watchUntilTheClientLeaves, stopWithin, true},
	} {
		say("%s:", way.what)
		if err := restart(ctx, newServer("old", beat, way.watch), way.stop, way.moves, say); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// restart stops a server which somebody follows, with another one beside it,
// and returns when the follower is there, if it is to move.
func restart(ctx context.Context, old *server, stop stopFunc, moves bool, say func(string, ...any)) error {
	oldSrv, oldAddr, err := listen(old)
	if err != nil {
		return err
	}
	defer oldSrv.Stop()
	newSrv, newAddr, err := listen(newServer("new", old.beat, (*server).watchUntilDrained))
	if err != nil {
		return err
	}
	defer newSrv.Stop()
	var addr atomic.Value // what a name service would say
	addr.Store(oldAddr)
	conn, err := connect(&addr)
	if err != nil {
		return err
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var stopping sync.WaitGroup
	first, moved := true, false
	err = follow(ctx, feedv1.NewFeedServiceClient(conn), old.beat, func(ev *feedv1.Event) {
		if moved = ev.GetBody() == "new"; moved {
			cancel()
		} else if first {
			first = false
			addr.Store(newAddr)
			stopping.Go(func() {
				start := time.Now()
				clean := stop(oldSrv, old.drain, 4*old.beat)
				say("  all streams ended by themselves: %v, after %v", clean, time.Since(start).Round(time.Millisecond/10))
				if !moves {
					cancel()
				}
			})
		}
	}, func(err error) { say("  the client: %v", err) })
	stopping.Wait()
	if ctx.Err() == nil {
		return err // not by a cancel of ours
	}
	say("  the client has an event of the new server: %v", moved)
	return nil
}

// listen starts a server on loopback.
func listen(s *server) (srv *grpc.Server, addr string, err error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("listen: %w", err)
	}
	srv = grpc.NewServer(options()...)
	feedv1.RegisterFeedServiceServer(srv, s)
	go srv.Serve(lis) // returns when srv is stopped
	return srv, lis.Addr().String(), nil
}

// connect makes a client of whichever server is at addr when it dials.
func connect(addr *atomic.Value) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient("passthrough:///deploys",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", addr.Load().(string))
		}))
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return conn, nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
