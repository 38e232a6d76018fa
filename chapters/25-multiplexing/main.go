// A connection carries any number of streams, and each costs two goroutines
// and what they need.
//
// The program gives a hundred streams a connection each. Then it opens a
// thousand on one connection, or as many as the flag -streams says, does not
// read 20 of them, and breaks the connection.
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
	"strconv"
	"strings"
	"sync/atomic"
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

var streams = flag.Uint("streams", 1000, "how many streams to open on one connection")

// What a stream takes that is open and silent, with both its ends in one process:
// the benchmark has measured it (bytes.mmd).
const (
	bytesAStream      = 16_500
	goroutinesAStream = 2
)

// openOnOne opens n streams on one connection, that of client, one topic each. It
// returns when the server has begun to serve all of them. They end with ctx.
func openOnOne(ctx context.Context, client feedv1.FeedServiceClient, n int) ([]watchClient, error) {
	all := make([]watchClient, n)
	for i := range all {
		var err error
		all[i], err = client.Watch(ctx, &feedv1.WatchRequest{Topic: strconv.Itoa(i)})
		if err != nil {
			return nil, err
		}
	}
	for _, stream := range all {
		if header, _ := stream.Header(); header == nil { // it has ended: Recv says why
			_, err := stream.Recv()
			return nil, err
		}
	}
	return all, nil
}

// openEachOnItsOwn opens n streams, each on a connection that it dials for it:
// a handshake, buffers on both sides and eight goroutines more for each.
func openEachOnItsOwn(ctx context.Context, h *host, n int) (all []watchClient, err error) {
	for range n {
		client, err := h.dial()
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
// the first topics, up to unread, have a hundred of 16 KiB, more than a window.
// It ends no stream.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	start  chan struct{}
	unread int
}

func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	if err := stream.SendHeader(nil); err != nil { // the client sees that it is served
		return err
	}
	select {
	case <-s.start:
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
	n, body := 10, ""
	if topic, _ := strconv.Atoi(req.GetTopic()); topic < s.unread {
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

// usage is what the process holds, in bytes, and its goroutines.
type usage struct{ heap, stacks, goroutines int }

func measure() usage {
	runtime.GC() // twice: what a sync.Pool holds survives the first
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return usage{int(m.HeapAlloc), int(m.StackInuse), runtime.NumGoroutine()}
}

// since is the difference, for each of n streams.
func (u usage) since(before usage, n int) (bytes, count float64) {
	held := u.heap + u.stacks - before.heap - before.stacks
	return float64(held) / float64(n), float64(u.goroutines-before.goroutines) / float64(n)
}

// A host is a server on loopback, and the connections to it that its dial made.
type host struct {
	net.Listener
	accepted atomic.Int64
	srv      *grpc.Server
	conns    []*grpc.ClientConn
}

func serve(svc feedv1.FeedServiceServer) (*host, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	h := &host{Listener: lis, srv: grpc.NewServer(grpc.WaitForHandlers(true))}
	feedv1.RegisterFeedServiceServer(h.srv, svc)
	go h.srv.Serve(h) // returns when srv is stopped
	return h, nil
}

// Accept counts what the server accepts.
func (h *host) Accept() (net.Conn, error) {
	conn, err := h.Listener.Accept()
	if err == nil {
		h.accepted.Add(1)
	}
	return conn, err
}

func (h *host) dial() (feedv1.FeedServiceClient, error) {
	conn, err := grpc.NewClient(h.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	h.conns = append(h.conns, conn)
	return feedv1.NewFeedServiceClient(conn), nil
}

// end closes the connections, stops the server and waits for the handlers.
func (h *host) end() {
	for _, conn := range h.conns {
		conn.Close()
	}
	h.srv.Stop()
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

// run tells the story on w. pace is how long a reader needs for a line. To a
// reader who is leaving it says nothing.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) {
		if ctx.Err() != nil {
			return
		}
		fmt.Fprintf(w, format+"\n", args...)
		select {
		case <-time.After(pace):
		case <-ctx.Done():
		}
	}
	n := max(1, int(*streams))
	say("%d streams will hold %d goroutines and about %d MiB; have twice as much free",
		n, n*goroutinesAStream, n*bytesAStream>>20) // the rest is for the garbage
	if err := tell(ctx, say, min(n, 100), true); err != nil {
		return err
	}
	return tell(ctx, say, n, false)
}

// tell opens n streams, on one connection or each on its own, and says what they
// take. To those of one connection more happens.
func tell(ctx context.Context, say func(string, ...any), n int, own bool) error {
	svc := &server{start: make(chan struct{}), unread: min(20, n/2)}
	h, err := serve(svc)
	if err != nil {
		return err
	}
	defer h.end()
	client, err := h.dial() // does not connect yet
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all []watchClient
	before, began := measure(), time.Now()
	if own {
		all, err = openEachOnItsOwn(ctx, h, n)
	} else {
		all, err = openOnOne(ctx, client, n)
	}
	if err != nil {
		return err
	}
	took := time.Since(began).Round(time.Millisecond)
	bytes, count := measure().since(before, n)
	say("%d streams, connections: %d; open after %v, and each takes %.1f KiB and %.1f goroutines",
		n, h.accepted.Load(), took, bytes/1024, count)
	if own {
		return nil
	}

	close(svc.start)
	for _, stream := range all[svc.unread:] {
		for range 10 {
			if _, err := stream.Recv(); err != nil {
				return err
			}
		}
	}
	say("  nobody reads %d of them; the others have all their %d events", svc.unread, 10*(n-svc.unread))
	h.srv.Stop() // closes the connection under all of them
	ends := 0
	for _, stream := range all {
		for err = nil; err == nil; {
			_, err = stream.Recv()
		}
		if status.Code(err) == codes.Unavailable {
			ends++
		}
	}
	say("  the connection breaks: %d of %d streams end with Unavailable", ends, n)
	return ctx.Err()
}
