// This program serves your Watch on loopback, calls it with your collect, and
// prints what each side saw.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A broker hands out subscriptions. Handlers may call Subscribe at the same
// time.
type broker interface {
	Subscribe(topic string) subscription
}

// A subscription is one watcher's place at a topic.
type subscription interface {
	// Events delivers the topic's events in order. The broker closes the
	// channel when the topic has ended, and only then: Close does not.
	Events() <-chan *feedv1.Event

	// Err says, once Events is closed, how the topic ended: nil if it is
	// complete, otherwise a gRPC status that is meant for the client.
	Err() error

	// Close gives the place back. More than one call does no harm.
	Close()
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
	feedv1.RegisterFeedServiceServer(srv, &server{broker: narrator{}})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)

	for _, topic := range []string{"deploys", "broken", "silent"} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// Half a second: "deploys" and "broken" end earlier, "silent" does not.
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		start := time.Now()
		events, err := collect(ctx, client, topic)
		fmt.Printf("client: collect(%q) returned %d events, code %v after %v\n", topic, len(events),
			status.Code(err), time.Since(start).Round(10*time.Millisecond))
		cancel()
		time.Sleep(100 * time.Millisecond) // the handler ends
	}
	return nil
}

// narrator is a broker that says what its watchers do.
type narrator struct{}

func (narrator) Subscribe(topic string) subscription {
	fmt.Printf("server: subscribed to %q\n", topic)
	p := &place{topic: topic, events: make(chan *feedv1.Event), closed: make(chan struct{})}
	go p.play()
	return p
}

// place is a subscription that plays its topic.
type place struct {
	topic  string
	events chan *feedv1.Event
	err    error // written before events is closed
	once   sync.Once
	closed chan struct{}
}

func (p *place) Events() <-chan *feedv1.Event { return p.events }

func (p *place) Err() error { return p.err }

func (p *place) Close() {
	p.once.Do(func() {
		fmt.Printf("server: the place at %q was given back\n", p.topic)
		close(p.closed)
	})
}

// play delivers the topic's events. It ends the topic, or leaves when the
// place was given back.
func (p *place) play() {
	for i, body := range map[string][]string{"deploys": {"started", "", "done"}, "broken": {"started"}}[p.topic] {
		time.Sleep(50 * time.Millisecond)
		select {
		case p.events <- &feedv1.Event{Id: strconv.Itoa(i + 1), Topic: p.topic, Body: body}:
		case <-p.closed:
			return
		}
	}
	switch p.topic {
	case "broken":
		p.err = status.Error(codes.Unavailable, "the topic moved")
	case "silent":
		<-p.closed
		return
	}
	fmt.Printf("server: the topic %q has ended\n", p.topic)
	close(p.events)
}
