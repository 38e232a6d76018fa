// This program runs your Watch and your uploadFrom on loopback against a peer
// that reads nothing for a while, and prints how far the source was read.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A source gives the events of one topic to one reader.
type source interface {
	// Next waits for the next event. io.EOF says that the topic is complete,
	// another error is a gRPC status that is meant for the client, or ctx's
	// own error if ctx has ended. Next is for one goroutine at a time, and is
	// not called again after an error.
	Next(ctx context.Context) (*feedv1.Event, error)
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
	down, up := &eventLog{left: 5000}, &eventLog{left: 5000}
	srv := grpc.NewServer(grpc.StaticStreamWindowSize(65_535))
	feedv1.RegisterFeedServiceServer(srv, uploads{&server{open: func(string) source { return down }}})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStaticStreamWindowSize(65_535))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()

	fmt.Printf("Watch and uploadFrom have sources of %d events of 1 KiB; Send takes about 128 before it blocks.\n", 5000)
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		return err
	}
	wait(ctx, quiet)
	fmt.Printf("client: has read nothing so far; Watch has taken %d events\n", down.taken.Load())
	received := 0
	for err == nil {
		if _, err = stream.Recv(); err == nil {
			received++
		}
	}
	fmt.Printf("client: received %d events, then %s; Watch has taken %d\n", received, name(err), down.taken.Load())

	time.AfterFunc(quiet*3/4, func() {
		fmt.Printf("server: has read nothing so far; uploadFrom has taken %d events\n", up.taken.Load())
	})
	n, err := uploadFrom(ctx, client, func() (*feedv1.Event, bool) {
		ev, err := up.Next(ctx)
		return ev, err == nil
	})
	fmt.Printf("client: uploadFrom returned %d, code %v; it has taken %d\n", n, status.Code(err), up.taken.Load())
	return ctx.Err()
}

// quiet is how long each peer reads nothing.
const quiet = 200 * time.Millisecond

// uploads counts what it receives, and begins late.
type uploads struct{ *server }

func (uploads) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	wait(stream.Context(), quiet)
	for n := int32(0); ; n++ {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&feedv1.UploadResult{Received: n})
		}
		if err != nil {
			return err
		}
	}
}

// eventLog is a source that counts what was taken from it.
type eventLog struct {
	left  int
	taken atomic.Int64
}

func (s *eventLog) Next(ctx context.Context) (*feedv1.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s.left == 0 {
		return nil, io.EOF
	}
	s.left--
	id := s.taken.Add(1)
	return &feedv1.Event{Id: strconv.FormatInt(id, 10), Body: strings.Repeat("x", 1024)}, nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func name(err error) string {
	if errors.Is(err, io.EOF) {
		return "io.EOF"
	}
	return "code " + status.Code(err).String()
}
