// This program serves your Watch on loopback, reads six topics with your watch,
// and prints what each side saw.
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
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// errNoTopic is what a source says of a topic that is not there, or is there
// no more. It may come wrapped.
var errNoTopic = errors.New("no such topic")

// A source has topics. Handlers may call Open at the same time.
type source interface {
	// Open returns when the topic can be read. When ctx ends the reader gives
	// back what it holds, and fails.
	Open(ctx context.Context, topic string) (reader, error)
}

// A reader reads one topic, for one goroutine at a time.
type reader interface {
	// Next waits for the next event. io.EOF, bare or wrapped: the topic is
	// complete. After an error it must not be called again.
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
	srv := grpc.NewServer(grpc.WaitForHandlers(true), grpc.StreamInterceptor(narrate))
	feedv1.RegisterFeedServiceServer(srv, &server{source: demo{}})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)

	for _, topic := range []string{"complete", "typo", "forbidden", "moved", "broken", "silent"} {
		fmt.Printf("The topic %q:\n", topic)
		if err := meet(ctx, client, topic); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// meet asks for the header and then calls watch, for 300 ms each.
func meet(ctx context.Context, client feedv1.FeedServiceClient, topic string) error {
	limit, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	stream, err := client.Watch(limit, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	header, _ := stream.Header()
	fmt.Printf("  client: the header watching is %q\n", header.Get("watching"))
	cancel()

	limit, cancel = context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	last, err := watch(limit, client, topic)
	fmt.Printf("  client: watch returned %q, %s\n", last, show(err))
	time.Sleep(50 * time.Millisecond) // the handler ends
	return ctx.Err()
}

// narrate tells what a handler returned.
func narrate(svc any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	err := handle(svc, stream)
	if stream.Context().Err() != nil {
		fmt.Printf("  server: the client is gone, Watch returned %v\n", err)
	} else {
		fmt.Printf("  server: Watch returned %v\n", err)
	}
	return err
}

func show(err error) string {
	if err == nil {
		return "no error"
	}
	return fmt.Sprintf("code %v, text %q", status.Code(err), status.Convert(err).Message())
}

// demo is a source with a topic for each way to end.
type demo struct{}

func (demo) Open(_ context.Context, topic string) (reader, error) {
	if topic == "typo" {
		return nil, fmt.Errorf("shard-9: lookup: %w", errNoTopic)
	}
	return &demoReader{topic: topic}, nil
}

type demoReader struct {
	topic string
	sent  int
}

func (r *demoReader) Next(ctx context.Context) (*feedv1.Event, error) {
	if r.sent < 3 && r.topic != "silent" {
		r.sent++
		return &feedv1.Event{Id: strconv.Itoa(r.sent), Topic: r.topic}, nil
	}
	switch r.topic {
	case "complete":
		return nil, io.EOF
	case "forbidden":
		return nil, status.Error(codes.PermissionDenied, "relay-7 may not read shard-9")
	case "moved":
		return nil, fmt.Errorf("read: %w", status.Error(codes.Unavailable, "shard-9 drains"))
	case "broken":
		return nil, errors.New("shard-9: checksum mismatch")
	}
	<-ctx.Done()
	return nil, fmt.Errorf("wait: %w", ctx.Err())
}
