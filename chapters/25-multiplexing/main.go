// A connection carries any number of streams, and each costs two goroutines
// and what they need.
//
// The program opens a thousand streams on one connection, or as many as the flag
// -streams says, lets 20 of them stall, and cuts the connection. Beside it a
// hundred streams get a connection each.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type (
	watchServer = grpc.ServerStreamingServer[feedv1.Event]
	watchClient = grpc.ServerStreamingClient[feedv1.Event]
)

var streams = flag.Int("streams", 1000, "how many streams to open on one connection")

// What a stream takes that is open and silent, with both its ends in one process:
// the benchmark has measured it (bytes.mmd).
const (
	bytesAStream      = 16_500
	goroutinesAStream = 2
)

// openOnOne opens n streams on one connection, that of client, one topic each. It
// returns when the server has begun to serve all of them.
func openOnOne(
	ctx context.Context, client feedv1.FeedServiceClient, n int,
) ([]watchClient, error) {
	all := make([]watchClient, n)
	for i := range all {
		var err error
		all[i], err = client.Watch(ctx, &feedv1.WatchRequest{Topic: strconv.Itoa(i)})
		if err != nil {
			return nil, err
		}
	}
	for _, stream := range all {
		stream.Header()
	}
	return all, ctx.Err()
}

// openEachOnItsOwn opens n streams, each on a connection that it dials for it:
// a handshake, four buffers and a dozen goroutines more for each.
func openEachOnItsOwn(
	ctx context.Context, dial func() (feedv1.FeedServiceClient, error), n int,
) ([]watchClient, error) {
	var all []watchClient
	for range n {
		client, err := dial()
		if err != nil {
			return nil, err
		}
		stream, err := openOnOne(ctx, client, 1)
		if err != nil {
			return nil, err
		}
		all = append(all, stream...)
	}
	return all, nil
}

// A server is silent until start is closed. Then each stream gets ten events;
// the first topics, up to stalled, have a hundred large ones, which do not fit
// into a window. It ends no stream.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	start   chan struct{}
	stalled int
}

func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	stream.SendHeader(nil) // tells the client that it is served
	select {
	case <-s.start:
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	n, body := 10, ""
	if topic, _ := strconv.Atoi(req.GetTopic()); topic < s.stalled {
		n, body = 100, strings.Repeat("x", 16<<10)
	}
	for id := range n {
		if err := stream.Send(&feedv1.Event{Id: strconv.Itoa(id), Body: body}); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// usage is what the process holds, and how many goroutines are gRPC's or were
// started by it.
type usage struct{ heap, stacks, goroutines int }

func measure() usage {
	runtime.GC() // twice: what a sync.Pool holds survives the first
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{int(m.HeapAlloc), int(m.StackInuse), goroutines("google.golang.org/grpc")}
}

// since is the difference, for each of n streams.
func (u usage) since(before usage, n int) (bytes, count float64) {
	held := u.heap + u.stacks - before.heap - before.stacks
	return float64(held) / float64(n), float64(u.goroutines-before.goroutines) / float64(n)
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

// A listener remembers what it has accepted.
type listener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns = append(l.conns, conn)
	}
	return conn, err
}

func (l *listener) accepted() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// cut breaks every connection.
func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, conn := range l.conns {
		conn.Close()
	}
}

func main() {
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	n := *streams
	say("%d streams will need about %d MiB and %d goroutines, both ends in this process",
		n, n*bytesAStream>>20, n*goroutinesAStream)
	for _, way := range []struct {
		name string
		n    int
		own  bool
	}{
		{"a connection each", min(n, 100), true},
		{"one connection", n, false},
	} {
		if err := tell(ctx, say, way.name, way.n, way.own); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// tell opens n streams in one of two ways and says what they took. To those of
// one connection more happens.
func tell(ctx context.Context, say func(string, ...any), name string, n int, own bool) error {
	svc := &server{start: make(chan struct{}), stalled: min(20, n/2)}
	lis, dial, end, err := serve(svc)
	if err != nil {
		return err
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before, began := measure(), time.Now()
	var all []watchClient
	if own {
		all, err = openEachOnItsOwn(ctx, dial, n)
	} else {
		var client feedv1.FeedServiceClient
		if client, err = dial(); err == nil {
			all, err = openOnOne(ctx, client, n)
		}
	}
	if err != nil {
		return err
	}
	took := time.Since(began)
	bytes, goroutines := measure().since(before, n)
	say("%s: %d streams open after %v, %d accepted; each takes %.1f KiB and %.1f goroutines",
		name, n, took.Round(time.Millisecond), lis.accepted(), bytes/1024, goroutines)
	if own {
		return nil
	}

	close(svc.start)
	got := 0
	for _, stream := range all[svc.stalled:] {
		for range 10 {
			if _, err := stream.Recv(); err != nil {
				return err
			}
			got++
		}
	}
	say("  %d of them stall, and the others have %d of %d events", svc.stalled, got, 10*(n-svc.stalled))
	lis.cut()
	ends := map[codes.Code]int{}
	for _, stream := range all {
		for err = nil; err == nil; {
			_, err = stream.Recv()
		}
		ends[status.Code(err)]++
	}
	if ctx.Err() == nil {
		say("  the connection is cut, and %d of %d streams end with Unavailable", ends[codes.Unavailable], n)
	}
	return ctx.Err()
}

// serve starts a server on loopback. dial connects to it; end closes these
// connections, stops the server and waits for the handlers.
func serve(svc feedv1.FeedServiceServer) (
	lis *listener, dial func() (feedv1.FeedServiceClient, error), end func(), err error,
) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, fmt.Errorf("listen: %w", err)
	}
	lis = &listener{Listener: tcp}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	var conns []*grpc.ClientConn
	dial = func() (feedv1.FeedServiceClient, error) {
		conn, err := grpc.NewClient(tcp.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, fmt.Errorf("client: %w", err)
		}
		conns = append(conns, conn)
		return feedv1.NewFeedServiceClient(conn), nil
	}
	end = func() {
		for _, conn := range conns {
			conn.Close()
		}
		srv.Stop()
	}
	return lis, dial, end, nil
}

// say prints a line and gives the reader time for it. To a reader who is
// leaving it says nothing.
func say(ctx context.Context, w io.Writer, pace time.Duration, format string, args ...any) {
	if ctx.Err() != nil {
		return
	}
	fmt.Fprintf(w, format+"\n", args...)
	select {
	case <-time.After(pace):
	case <-ctx.Done():
	}
}
