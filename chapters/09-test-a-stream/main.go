// A leak test for a stream: it must look while the connection is open.
//
// The program takes two clients, one that cancels its stream and one that
// leaves it, and looks for what they left: when all is closed, and before.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// server is a feed of topics with one event. They stay silent after it, except
// for the topic "over", which ends.
type server struct {
	feedv1.UnimplementedFeedServiceServer
}

func (server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	if err := stream.Send(&feedv1.Event{Id: "1", Topic: req.GetTopic()}); err != nil {
		return err
	}
	if req.GetTopic() == "over" {
		return nil
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// takeFirst returns a topic's first event and leaves the stream as it is.
func takeFirst(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
) (*feedv1.Event, error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	return stream.Recv()
}

// takeFirstAndCancel returns a topic's first event and ends the stream.
func takeFirstAndCancel(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
) (*feedv1.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return takeFirst(ctx, client, topic)
}

// A listener is what bufconn.Listen returns.
type listener interface {
	net.Listener
	DialContext(context.Context) (net.Conn, error)
}

// leaksAfterClose runs use against svc, closes all, and returns what is left:
// as a test does that ends in defer goleak.VerifyNone(t).
func leaksAfterClose(lis listener, svc feedv1.FeedServiceServer, use func(feedv1.FeedServiceClient)) error {
	before := goleak.IgnoreCurrent()
	conn, stop, err := serve(lis, svc)
	if err != nil {
		return err
	}
	use(feedv1.NewFeedServiceClient(conn))
	stop() // ends every stream, whoever left it
	return goleak.Find(before)
}

// leaks runs use against svc and returns what it left: first what Close would
// release, then, with all closed, the rest.
func leaks(lis listener, svc feedv1.FeedServiceServer, use func(feedv1.FeedServiceClient)) error {
	before := goleak.IgnoreCurrent() // of other tests, and of the test itself
	var streams streams
	conn, stop, err := serve(lis, svc, grpc.WithChainStreamInterceptor(streams.count))
	if err != nil {
		return err
	}
	use(feedv1.NewFeedServiceClient(conn))
	// Find waits 0.43 s for what is ending: only then are streams counted.
	found := goleak.Find(append(transport(), before)...)
	open := errors.Join(streams.left(), found)
	stop()
	return cmp.Or(open, goleak.Find(before)) // the rest, if that was nothing
}

// streams counts the streams of a connection.
type streams struct{ begun, ended atomic.Int64 }

// count is an interceptor. A stats.Handler would count attempts: an RPC whose
// opening is retried has several, and grpc-go v1.85.0 may never end one.
func (s *streams) count(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s.begun.Add(1)
	end := grpc.OnFinish(func(error) { s.ended.Add(1) }) // also if open fails
	return open(ctx, desc, conn, method, append(slices.Clone(opts), end)...)
}

func (s *streams) left() error {
	begun := s.begun.Load()
	if n := begun - s.ended.Load(); n > 0 {
		return fmt.Errorf("%d of %d streams never ended", n, begun)
	}
	return nil
}

// transport ignores the goroutines that work for a connection and for no
// stream, by a function on their stack. A baseline would not do: a reconnect
// renews them. The names are those of grpc-go v1.85.0.
func transport() []goleak.Option {
	var ignore []goleak.Option
	for _, function := range []string{
		".(*Server).Serve",                         // accepts connections
		".(*Server).handleRawConn",                 // shakes hands
		"/internal/transport.NewHTTP2Client.func4", // the client's side of that
		".(*addrConn).resetTransportAndUnlock",     // connects, and waits before it connects again
		"/internal/grpcsync.(*CallbackSerializer).run",
		"/internal/transport.(*http2Client).reader",
		"/internal/transport.(*http2Client).keepalive", // with grpc.WithKeepaliveParams
		"/internal/transport.(*http2Server).HandleStreams",
		"/internal/transport.(*http2Server).keepalive",
		"/internal/transport.(*loopyWriter).run", // one on each side
	} {
		ignore = append(ignore, goleak.IgnoreAnyFunction("google.golang.org/grpc"+function))
	}
	return ignore
}

// serve starts a server for svc and makes a connection to it. stop ends both.
func serve(
	lis listener, svc feedv1.FeedServiceServer, opts ...grpc.DialOption,
) (conn *grpc.ClientConn, stop func(), err error) {
	// Without WaitForHandlers: Stop would wait for a handler that never ends.
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped
	// The default scheme, dns, would look the name up.
	conn, err = grpc.NewClient("passthrough:///test", append(opts,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return lis.DialContext(ctx)
		}))...)
	if err != nil {
		srv.Stop()
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	return conn, func() { conn.Close(); srv.Stop() }, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second/2); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	for _, client := range []struct {
		what string
		take func(context.Context, feedv1.FeedServiceClient, string) (*feedv1.Event, error)
	}{
		{"A client takes an event and cancels its stream:", takeFirstAndCancel},
		{"A client takes an event and leaves its stream:", takeFirst},
	} {
		say(client.what)
		for _, check := range []struct {
			when  string
			leaks func(listener, feedv1.FeedServiceServer, func(feedv1.FeedServiceClient)) error
		}{
			{"goleak when all is closed", leaksAfterClose},
			{"goleak while it is open", leaks},
		} {
			lis, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return fmt.Errorf("listen: %w", err)
			}
			left := check.leaks(overTCP{lis}, server{}, func(feed feedv1.FeedServiceClient) {
				_, err = client.take(ctx, feed, "alerts")
			})
			if err != nil {
				return err
			}
			say("  %s: %s", check.when, summary(left))
		}
	}
	return ctx.Err()
}

// overTCP is a listener whose dialer uses the network.
type overTCP struct{ net.Listener }

func (lis overTCP) DialContext(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", lis.Addr().String())
}

// summary shortens what leaks returned to the counts, and to the functions in
// which the goroutines wait.
func summary(left error) string {
	if left == nil {
		return "nothing"
	}
	var found []string
	for line := range strings.Lines(left.Error()) {
		_, top, goroutine := strings.Cut(line, ", with ")
		top, _, _ = strings.Cut(top, " on top of the stack")
		switch {
		case goroutine:
			_, function, _ := strings.Cut(top[strings.LastIndex(top, "/")+1:], ".")
			found = append(found, function)
		case strings.HasSuffix(line, "never ended\n"):
			found = append(found, strings.TrimSpace(line))
		}
	}
	slices.Sort(found)
	return strings.Join(found, ", ")
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
