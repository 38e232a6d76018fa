// This program serves your UploadEvents on loopback, calls it with your
// upload, and prints what each side saw.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A repo keeps events. Insert may be called by many goroutines at once.
type repo interface {
	// Insert stores an event, which nobody may change after that. If an
	// event with this id is stored already, it stores nothing and returns
	// errDuplicate or an error that wraps it. Any other error is a failure.
	Insert(ctx context.Context, ev *feedv1.Event) error
}

var errDuplicate = errors.New("stored already")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	log.SetOutput(os.Stdout)
	log.SetFlags(log.Ltime | log.Lmicroseconds)
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
	feedv1.RegisterFeedServiceServer(srv, talking{&server{repo: &memory{}}})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)

	for _, ids := range []string{"1 2 3", "2 3 4", "5 fail 6", "7 hang 8"} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var events []*feedv1.Event
		for _, id := range strings.Fields(ids) {
			events = append(events, &feedv1.Event{Id: id, Topic: "alerts"})
		}
		log.Printf("client: upload %s", ids)
		try(ctx, client, events)
	}

	if ctx.Err() != nil {
		return ctx.Err()
	}
	events := []*feedv1.Event{{Id: "fail", Topic: "alerts"}}
	for id := range 10_000 {
		events = append(events, &feedv1.Event{Id: fmt.Sprint("bulk", id), Body: strings.Repeat("x", 1000)})
	}
	log.Printf("client: upload fail and 10,000 more")
	try(ctx, client, events)
	return ctx.Err()
}

// try uploads, and then waits a moment to show what the server does when
// upload has returned.
func try(ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	n, err := upload(ctx, client, events)
	log.Printf("client: upload returned %d, code %v, error %v", n, status.Code(err), err)
	select {
	case <-time.After(500 * time.Millisecond):
	case <-ctx.Done():
	}
}

// talking prints how the handler ends.
type talking struct{ *server }

func (t talking) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	err := t.server.UploadEvents(stream)
	log.Printf("server: UploadEvents returned error %v", err)
	return err
}

// memory is a repo that takes a while, fails for one id and hangs for
// another.
type memory struct {
	mu  sync.Mutex
	ids map[string]bool
}

func (m *memory) Insert(ctx context.Context, ev *feedv1.Event) error {
	switch ev.GetId() {
	case "fail":
		return errors.New("disk of db-7 is full")
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(50 * time.Millisecond)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ids[ev.GetId()] {
		log.Printf("server: %s is a duplicate", ev.GetId())
		return fmt.Errorf("insert %s: %w", ev.GetId(), errDuplicate)
	}
	if m.ids == nil {
		m.ids = map[string]bool{}
	}
	m.ids[ev.GetId()] = true
	log.Printf("server: %s is stored", ev.GetId())
	return nil
}
