// This program follows a topic with your follow, over loopback, while its server
// is stopped and replaced, and then refuses. It prints what each side saw.
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
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// The waits of follow begin with first, double, and end with longest.
const (
	first   = time.Second
	longest = time.Minute
)

// demoFeed sends an event each half second, or refuses.
type demoFeed struct {
	feedv1.UnimplementedFeedServiceServer
	name    string
	lasts   time.Duration
	refuses codes.Code // OK: it does not
}

func (f demoFeed) Watch(_ *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	demoSay("server:  a stream opens")
	if f.refuses != codes.OK {
		return status.Errorf(f.refuses, "says the %s server", f.name)
	}
	for n := 1; ; n++ {
		select {
		case <-time.After(first / 2):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(&feedv1.Event{Id: fmt.Sprintf("%d of the %s server", n, f.name)}); err != nil {
			return err
		}
	}
}

var demoOutput = struct {
	sync.Mutex
	start time.Time
}{start: time.Now()}

func demoSay(format string, args ...any) {
	demoOutput.Lock()
	defer demoOutput.Unlock()
	fmt.Printf("%6d ms  %s\n", time.Since(demoOutput.start).Milliseconds(), fmt.Sprintf(format, args...))
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := demo(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func demo(ctx context.Context) error {
	var at atomic.Value // where the server is now, as a name service would know it
	conn, err := grpc.NewClient("passthrough:///feed", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at.Load().(string))
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           grpcbackoff.Config{BaseDelay: first / 5, Multiplier: 1, MaxDelay: first / 5},
			MinConnectTimeout: time.Second,
		}))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, 25*time.Second)
	defer cancel()
	returned := make(chan error, 1)
	for i, f := range []demoFeed{
		{name: "first", lasts: 2 * first},
		{name: "second", lasts: 3 * first, refuses: codes.Unavailable},
		{name: "third", lasts: 6 * first},
		{name: "fourth", lasts: 3 * first, refuses: codes.PermissionDenied},
	} {
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		at.Store(lis.Addr().String())
		demoSay("the %s server is started", f.name)
		srv := grpc.NewServer(grpc.WaitForHandlers(true))
		feedv1.RegisterFeedServiceServer(srv, f)
		go srv.Serve(lis) // returns when srv is stopped
		if i == 0 {
			go func() {
				returned <- follow(ctx, feedv1.NewFeedServiceClient(conn), "deploys", func(ev *feedv1.Event) error {
					demoSay("client:  handles event %s", ev.GetId())
					return nil
				})
			}()
		}
		over := demoPause(ctx, returned, f.lasts)
		demoSay("the %s server is stopped", f.name)
		srv.Stop()
		if over || demoPause(ctx, returned, first/2) {
			break
		}
	}
	cancel()
	demoSay("client:  follow returned %v", <-returned)
	return nil
}

// demoPause waits for d, and says whether it is all over before that. What follow
// returned stays in the channel.
func demoPause(ctx context.Context, returned chan error, d time.Duration) bool {
	select {
	case err := <-returned:
		returned <- err
		return true
	case <-ctx.Done():
		return true
	case <-time.After(d):
		return false
	}
}
