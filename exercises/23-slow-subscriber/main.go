// This program serves your broker on loopback to two clients, of which one has
// stopped reading, and prints what each of them gets.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ErrTooSlow is why the broker ends a subscription whose queue is full.
var ErrTooSlow = errors.New("the subscriber is too slow")

// server streams what its broker delivers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker *broker
}

// Watch sends the events of a topic at the pace of its client, and says why
// there are no more.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.broker.Subscribe(req.GetTopic())
	defer sub.Close()
	if err := stream.SendHeader(nil); err != nil { // tells the client that it has subscribed
		return err
	}
	for {
		select {
		case ev, ok := <-sub.C:
			if !ok {
				return ending(sub.Err())
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// ending is the status that the client gets.
func ending(err error) error {
	if errors.Is(err, ErrTooSlow) {
		return status.Error(codes.ResourceExhausted, err.Error())
	}
	return err
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
	const n, events = 64, 300
	b := newBroker(n)
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, &server{broker: b})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(65_535), grpc.WithStaticConnWindowSize(65_535))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	client := feedv1.NewFeedServiceClient(conn)
	var streams []grpc.ServerStreamingClient[feedv1.Event]
	for range 2 {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
		if err != nil {
			return err
		}
		if _, err := stream.Header(); err != nil {
			return err
		}
		streams = append(streams, stream)
	}

	fmt.Printf("two clients, a queue of %d for each, and a publisher of %d events of 1 KiB; Send takes about 128 before it blocks\n", n, events)
	stalled, reader := streams[0], streams[1]
	returned := make(chan bool)
	for i := range events {
		ev := &feedv1.Event{Id: strconv.Itoa(100 + i), Topic: "alerts", Body: strings.Repeat("x", 1008)} // 1 KiB when it is encoded
		go func() { b.Publish(ev); returned <- true }()
		select {
		case <-returned:
		case <-time.After(500 * time.Millisecond):
			fmt.Printf("Publish of event %d has not returned after 500ms\n", i+1)
			os.Exit(0) // nothing else ends it
		}
		if _, err := reader.Recv(); err != nil {
			return fmt.Errorf("the client that reads got %d events, and then %w", i, err)
		}
		time.Sleep(time.Millisecond) // for the other handler to take it, too
	}
	fmt.Printf("the client that reads got %d events\n", events)
	for i := 0; ; i++ {
		if _, err := stalled.Recv(); err != nil {
			fmt.Printf("the other one reads now: %d events, and then code %v\n", i, status.Code(err))
			return nil
		}
	}
}
