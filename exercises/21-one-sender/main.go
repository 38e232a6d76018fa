// This program lets ten producers send through your fanIn to a client on
// loopback that reads late, and prints what arrived.
package main

import (
	"context"
	"errors"
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

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// errClosed is what Send may return after Close.
var errClosed = errors.New("the fan-in is closed")

// server has ten producers for each stream. Together they fill it, and then
// each has one tiny event more.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	done atomic.Int32 // producers whose last Send has returned
}

// full is how many events of 1 KiB a stream takes whose client does not read.
const full = 128

func (s *server) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	f := newFanIn(stream)
	defer f.Close()
	for range full {
		if err := f.Send(&feedv1.Event{Body: strings.Repeat("x", 1024)}); err != nil {
			return err
		}
	}
	var all sync.WaitGroup
	for p := range 10 {
		all.Go(func() {
			switch err := f.Send(&feedv1.Event{Body: "!"}); {
			case errors.Is(err, errClosed):
				fmt.Printf("  producer %d came too late\n", p)
			case err != nil:
				fmt.Printf("  producer %d: %v\n", p, err)
			default:
				s.done.Add(1)
			}
		})
	}
	all.Wait()
	return nil
}

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
	svc := new(server)
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStaticStreamWindowSize(65_535))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		return err
	}
	select {
	case <-time.After(200 * time.Millisecond):
	case <-ctx.Done():
		return ctx.Err()
	}
	fmt.Printf("client: has read nothing so far; %d of 10 producers have sent their event\n", svc.done.Load())
	silent := time.AfterFunc(500*time.Millisecond, func() {
		fmt.Printf("client: half a second of silence; %d of 10 producers have sent their event; cancels\n", svc.done.Load())
		cancel()
	})
	for n := 0; ; n++ {
		_, err := stream.Recv()
		silent.Reset(500 * time.Millisecond)
		if err != nil {
			silent.Stop()
		}
		if errors.Is(err, io.EOF) {
			fmt.Printf("client: received %d of %d events, then the handler returned; %d of 10 producers have sent theirs\n", n, full+10, svc.done.Load())
			return nil
		}
		if err != nil {
			fmt.Printf("client: received %d of %d events, then %v\n", n, full+10, err)
			return nil
		}
	}
}
