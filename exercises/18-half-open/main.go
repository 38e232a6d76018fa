// This program serves with your serverOptions on loopback, connects with your
// dialOptions, and pulls the cable, once with a stream and once without. It
// prints when each side notices, which takes real time: up to 35 seconds each.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/stats"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	for _, stream := range []bool{true, false} {
		if err := pull(ctx, stream); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// pull connects, pulls the cable, and waits for both sides to notice.
func pull(ctx context.Context, stream bool) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	server, client := make(closing, 1), make(closing, 1)
	srv := grpc.NewServer(append(serverOptions(), grpc.StatsHandler(server))...)
	feedv1.RegisterFeedServiceServer(srv, feed{})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	tcp, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer tcp.Close()
	wire := &cable{Conn: tcp}
	dial := func(context.Context, string) (net.Conn, error) { return wire, nil }
	conn, err := grpc.NewClient(lis.Addr().String(), append(dialOptions(), grpc.WithStatsHandler(client),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(dial))...)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	what := "an open stream"
	if stream {
		watching, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
		if err == nil {
			_, err = watching.Header()
		}
		if err != nil {
			return fmt.Errorf("watch: %w", err)
		}
	} else {
		what = "no stream"
		if _, err := feedv1.NewFeedServiceClient(conn).Publish(ctx, &feedv1.PublishRequest{}); err != nil {
			return fmt.Errorf("publish: %w", err)
		}
	}
	wire.pulled.Store(true)
	fmt.Printf("the cable is pulled, with %s\n", what)
	start, over := time.Now(), time.After(35*time.Second)
	var both sync.WaitGroup
	for name, closed := range map[string]closing{"client": client, "server": server} {
		both.Go(func() {
			select {
			case <-closed:
				fmt.Printf("  the %s noticed after %v\n", name, time.Since(start).Round(100*time.Millisecond))
			case <-over:
				fmt.Printf("  the %s has not noticed after %v\n", name, time.Since(start).Round(time.Second))
			case <-ctx.Done():
			}
		})
	}
	both.Wait()
	return ctx.Err()
}

// feed is a service with a silent topic.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
}

func (feed) Publish(context.Context, *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	return &feedv1.PublishResponse{}, nil
}

func (feed) Watch(_ *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// closing is a stats.Handler that tells when its first connection has ended.
type closing chan struct{}

func (c closing) HandleConn(_ context.Context, s stats.ConnStats) {
	if _, ok := s.(*stats.ConnEnd); ok {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (closing) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

func (closing) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context { return ctx }

func (closing) HandleRPC(context.Context, stats.RPCStats) {}

// cable is a connection that swallows everything once it is pulled.
type cable struct {
	net.Conn
	pulled atomic.Bool
}

func (c *cable) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.pulled.Load() {
			return n, err
		}
	}
}

func (c *cable) Write(b []byte) (int, error) {
	if c.pulled.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// Close of a pulled cable ends this end alone: the server must not hear of it.
func (c *cable) Close() error {
	if c.pulled.Load() {
		return c.Conn.SetReadDeadline(time.Now())
	}
	return c.Conn.Close()
}
