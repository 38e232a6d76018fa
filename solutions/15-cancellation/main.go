// This program serves your relay between a client and an origin, all on
// loopback, and prints what each of the three saw.
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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// An audit writes down that a client of a topic got so many events, and which
// client: the metadata in ctx says it. That takes less than two seconds. When
// the audit's own store does not answer, it returns when ctx ends, and not
// before. It may be called from several goroutines.
type audit func(ctx context.Context, topic string, sent int)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	upstream, endOrigin, err := serve(origin{})
	if err != nil {
		return err
	}
	defer endOrigin()
	client, endRelay, err := serve(&relay{upstream: upstream, audit: write})
	if err != nil {
		return err
	}
	defer endRelay()

	for _, topic := range []string{"complete", "typo", "forbidden", "endless"} {
		fmt.Printf("The topic %q:\n", topic)
		if err := watch(ctx, client, topic); err != nil {
			return err
		}
		pause(ctx, 200*time.Millisecond) // for the relay and the origin to end
	}
	return ctx.Err()
}

// watch reads a topic for half a second at most, then it leaves.
func watch(ctx context.Context, client feedv1.FeedServiceClient, topic string) error {
	start := time.Now()
	limit, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "user", "ann"))
	defer cancel()
	defer time.AfterFunc(500*time.Millisecond, cancel).Stop()
	stream, err := client.Watch(limit, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	events := 0
	for {
		if _, err = stream.Recv(); err != nil {
			break
		}
		events++
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	fmt.Printf("  client: %d events, code %v after %v\n", events, status.Code(err), time.Since(start).Round(10*time.Millisecond))
	return ctx.Err()
}

// write is an audit on the screen, which takes a while.
func write(ctx context.Context, topic string, sent int) {
	select {
	case <-time.After(100 * time.Millisecond):
		user := metadata.ValueFromIncomingContext(ctx, "user")
		fmt.Printf("  audit: %q of %q got %d events\n", topic, user, sent)
	case <-ctx.Done():
		fmt.Printf("  audit: lost: %v\n", ctx.Err())
	}
}

// origin has a topic for each way to end.
type origin struct {
	feedv1.UnimplementedFeedServiceServer
}

func (origin) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) (err error) {
	defer func() { fmt.Printf("  origin: Watch returns %v\n", err) }()
	for id := 1; ; id++ {
		switch {
		case req.GetTopic() == "typo":
			return status.Error(codes.NotFound, "no such topic")
		case req.GetTopic() == "forbidden":
			return status.Error(codes.PermissionDenied, "relay-7 may not read")
		case req.GetTopic() == "complete" && id > 3:
			return nil
		}
		if err := stream.Send(&feedv1.Event{Id: strconv.Itoa(id), Topic: req.GetTopic()}); err != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// serve starts a server on loopback and connects to it.
func serve(svc feedv1.FeedServiceServer) (feedv1.FeedServiceClient, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		srv.Stop()
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	return feedv1.NewFeedServiceClient(conn), func() { conn.Close(); srv.Stop() }, nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
