// This program downloads over loopback, with your options and a round trip of
// 200 ms, and prints how fast that is; then the client stops reading, and it
// prints what the client holds. It takes six seconds.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	event := &feedv1.Event{Body: strings.Repeat("x", 16<<10)}
	srv := grpc.NewServer(serverOptions()...)
	feedv1.RegisterFeedServiceServer(srv, &feed{event: event})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	tcp, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	wire := newFar(tcp, 200*time.Millisecond)
	defer wire.Close()
	dial := func(context.Context, string) (net.Conn, error) { return wire, nil }
	conn, err := grpc.NewClient("passthrough:///far", append(dialOptions(), grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	var read int64
	for second := 1; second <= 4; second++ {
		before := read
		for start := time.Now(); time.Since(start) < time.Second; read += int64(proto.Size(event) + 5) {
			if _, err := stream.Recv(); err != nil {
				return fmt.Errorf("recv: %w", err)
			}
		}
		fmt.Printf("second %d: %6.2f MB\n", second, float64(read-before)/1e6)
	}
	select {
	case <-time.After(2 * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	fmt.Printf("the client has stopped reading, and holds %.2f MiB of the stream\n", float64(wire.data.Load()-read)/(1<<20))
	return nil
}

// feed sends the same event as fast as it can.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	event *feedv1.Event
}

func (f *feed) Watch(_ *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	for {
		if err := stream.Send(f.event); err != nil {
			return err
		}
	}
}

// far is a connection whose bytes arrive a round trip later.
type far struct {
	net.Conn
	data   atomic.Int64 // bytes of DATA frames that have been read
	head   []byte       // the header of the frame that comes
	left   int          // bytes that its payload still has
	pieces chan piece
	rest   []byte
	once   sync.Once
	closed chan struct{}
}

type piece struct {
	data    []byte
	arrives time.Time
}

func newFar(conn net.Conn, rtt time.Duration) *far {
	c := &far{Conn: conn, pieces: make(chan piece, 10_000), closed: make(chan struct{})}
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
			case <-c.closed:
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
	c.count(b[:n])
	return n, nil
}

// count counts what is the payload of DATA frames. A frame's header has 9
// bytes: its length in three, and its type, 0 for DATA.
func (c *far) count(b []byte) {
	for len(b) > 0 {
		if c.left > 0 {
			n := min(c.left, len(b))
			if c.head[3] == 0 {
				c.data.Add(int64(n))
			}
			c.left, b = c.left-n, b[n:]
			continue
		}
		if len(c.head) == 9 {
			c.head = nil
		}
		n := min(9-len(c.head), len(b))
		c.head, b = append(c.head, b[:n]...), b[n:]
		if len(c.head) == 9 {
			c.left = int(c.head[0])<<16 | int(c.head[1])<<8 | int(c.head[2])
		}
	}
}

func (c *far) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
