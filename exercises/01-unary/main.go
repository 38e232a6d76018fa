// This program serves your Publish on loopback, calls it with your publish,
// and prints what each side saw.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A store keeps events. Insert may be called by many goroutines at once.
type store interface {
	Insert(ctx context.Context, ev *feedv1.Event) error
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
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, &server{store: &memory{}})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)

	for _, call := range []struct{ topic, body string }{
		{"alerts", "deploy started"},
		{"alerts", "deploy done"},
		{"", "no topic"},
		{"alerts", "fail"},
		{"alerts", "hang"},
	} {
		// Two seconds, so that you need not wait for five.
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		start := time.Now()
		id, err := publish(ctx, client, call.topic, call.body)
		fmt.Printf("client: publish(%q, %q) returned id %q, code %v after %v\n", call.topic, call.body, id,
			status.Code(err), time.Since(start).Round(10*time.Millisecond))
		cancel()
	}
	return nil
}

// memory is a store that fails for one body and hangs for another.
type memory struct {
	mu     sync.Mutex
	events []*feedv1.Event
}

func (m *memory) Insert(ctx context.Context, ev *feedv1.Event) error {
	switch ev.GetBody() {
	case "fail":
		return errors.New("disk of db-7 is full")
	case "hang":
		select {
		case <-ctx.Done():
			fmt.Println("server: the context of the call that hangs has ended")
			return ctx.Err()
		case <-time.After(3 * time.Second):
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, ev)
	fmt.Printf("server: stored id %q, %s: %q\n", ev.GetId(), ev.GetTopic(), ev.GetBody())
	return nil
}
