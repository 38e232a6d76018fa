// A stream carries between three quarters of a window and one window in a round
// trip. The window is the receiver's. What it allows to be on the way, the
// receiver also holds when nobody reads: the program shows both, over loopback
// and with a round trip added, for 64 KiB by hand, for nothing, and for the rule.
package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// Windows that gRPC has of itself: the smallest, with which it begins, and the
// largest to which its estimator goes.
const (
	smallest = 65_535
	largest  = 16 << 20
)

// perRoundTrip is how many bytes a stream with a fixed window carries in a
// round trip, if a message takes wire bytes of it: its encoding and 5 more. It
// is for messages of up to 16 KiB and up to a twelfth of the window.
func perRoundTrip(window, wire int) int {
	quarter := window / 4
	credit := (quarter + wire - 1) / wire * wire // whole messages
	return window / credit * credit              // whole credits
}

// windows is the rule: what the receiving side sets for a link of so many bytes
// a second, or 0, 0, which is to set nothing: the estimator finds the windows. A
// stream that nobody reads may hold budget bytes, 64 KiB at least.
func windows(rtt time.Duration, bandwidth, budget int) (stream, conn int32) {
	flight := rtt.Seconds() * float64(bandwidth) // on the way when the link is full
	need := max(int(min(flight*4/3+1, math.MaxInt32)), smallest)
	if need <= largest && budget >= largest {
		return 0, 0
	}
	return int32(min(need, max(budget, smallest))), int32(need)
}

// download is for a client that receives: the window is the receiver's.
func download(rtt time.Duration, bandwidth, budget int) []grpc.DialOption {
	stream, conn := windows(rtt, bandwidth, budget)
	if stream == 0 {
		return nil
	}
	return []grpc.DialOption{
		grpc.WithStaticStreamWindowSize(stream), grpc.WithStaticConnWindowSize(conn),
	}
}

// upload is for a server that receives.
func upload(rtt time.Duration, bandwidth, budget int) []grpc.ServerOption {
	stream, conn := windows(rtt, bandwidth, budget)
	if stream == 0 {
		return nil
	}
	return []grpc.ServerOption{
		grpc.StaticStreamWindowSize(stream), grpc.StaticConnWindowSize(conn),
	}
}

// byHand sets the default as it is told: where gRPC begins, and now also ends.
func byHand() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithInitialWindowSize(64 << 10), grpc.WithInitialConnWindowSize(64 << 10),
	}
}

// server sends events of one size as fast as it can.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	event *feedv1.Event
}

func (s *server) Watch(
	_ *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event],
) error {
	for {
		if err := stream.Send(s.event); err != nil {
			return err
		}
	}
}

func main() {
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
	const rtt, bandwidth, budget = 2 * time.Millisecond, 200_000_000, 1 << 20
	say("a round trip of %v, 768 KiB read, and then nothing more:", rtt)
	for _, way := range []struct {
		name    string
		options []grpc.DialOption
	}{
		{"64 KiB by hand", byHand()},
		{"left alone", nil},
		{"for 200 MB/s and 1 MiB of memory", download(rtt, bandwidth, budget)},
	} {
		rate, held, err := watch(ctx, rtt, way.options)
		if err != nil {
			return err
		}
		say("  %-32s %5.1f MB/s, and a stream that nobody reads holds %5d KiB",
			way.name, rate/1e6, held>>10)
	}
	return ctx.Err()
}

// watch reads 768 KiB of a topic, then nothing more, and returns how fast that
// was, in bytes a second, and what the client holds when nothing moves any more.
func watch(
	ctx context.Context, rtt time.Duration, options []grpc.DialOption,
) (rate float64, held int, err error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, fmt.Errorf("listen: %w", err)
	}
	event := &feedv1.Event{Body: strings.Repeat("x", 8<<10)}
	size := proto.Size(event) + 5
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, &server{event: event})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()
	var taken atomic.Int64
	conn, err := grpc.NewClient("passthrough:///"+lis.Addr().String(), append(options,
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			return newFar(conn, rtt, &taken), nil
		}), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return 0, 0, fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err == nil {
		_, err = stream.Recv()
	}
	read, start := size, time.Now()
	for ; err == nil && read < 768<<10; read += size {
		_, err = stream.Recv()
	}
	if err != nil {
		return 0, 0, err
	}
	rate = float64(read-size) / time.Since(start).Seconds()
	for last := int64(-1); last != taken.Load(); {
		last = taken.Load()
		select {
		case <-time.After(6 * rtt):
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
	return rate, int(taken.Load()) - read, nil
}

// far is a connection whose bytes arrive a round trip later.
type far struct {
	net.Conn
	taken  *atomic.Int64 // bytes that have been read
	pieces chan piece
	rest   []byte // of the piece that is being read
	end    context.CancelFunc
}

type piece struct {
	data    []byte
	arrives time.Time
}

func newFar(conn net.Conn, rtt time.Duration, taken *atomic.Int64) *far {
	ctx, end := context.WithCancel(context.Background())
	c := &far{Conn: conn, taken: taken, pieces: make(chan piece, 1000), end: end}
	go func() { // ends when the connection is closed
		defer close(c.pieces)
		for {
			b := make([]byte, 32<<10)
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			select {
			case c.pieces <- piece{b[:n], time.Now().Add(rtt)}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return c
}

func (c *far) Read(b []byte) (int, error) {
	if len(c.rest) == 0 {
		p, ok := <-c.pieces
		if !ok {
			return 0, io.EOF
		}
		time.Sleep(time.Until(p.arrives))
		c.rest = p.data
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	c.taken.Add(int64(n))
	return n, nil
}

func (c *far) Close() error {
	c.end()
	return c.Conn.Close()
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
