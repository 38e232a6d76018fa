// This program serves your Watch on loopback, watches two topics for a while,
// and prints what each side saw. A beat is 200 ms here.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A broker delivers topics.
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

// heartbeat is what Watch sends when nothing else was sent.
func heartbeat(topic string) *feedv1.Event {
	return &feedv1.Event{Topic: topic, Body: "heartbeat"}
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
	feedv1.RegisterFeedServiceServer(srv, talking{&server{broker: script{}, beat: 200 * time.Millisecond}})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	for _, topic := range []string{"deploys", "silent"} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("%s:\n", topic)
		watch(ctx, feedv1.NewFeedServiceClient(conn), topic)
	}
	return ctx.Err()
}

// watch prints a topic for a second and a half, and waits a while for what the
// server still does then.
func watch(ctx context.Context, client feedv1.FeedServiceClient, topic string) {
	ctx, cancel := context.WithTimeout(ctx, 1500*time.Millisecond)
	defer cancel()
	start := time.Now()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			fmt.Printf("  %4d ms  client: %q\n", time.Since(start).Milliseconds(), ev.GetBody())
		}
	}
	if ctx.Err() != context.Canceled {
		fmt.Printf("  %4d ms  client: Recv returned %v\n", time.Since(start).Milliseconds(), err)
		time.Sleep(500 * time.Millisecond)
	}
}

// talking prints how the handler ends, and each Send that fails.
type talking struct{ *server }

func (t talking) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	err := t.server.Watch(req, loud{stream, req.GetTopic()})
	fmt.Printf("           server: Watch of %q returned %v\n", req.GetTopic(), err)
	return err
}

type loud struct {
	grpc.ServerStreamingServer[feedv1.Event]
	topic string
}

func (s loud) Send(ev *feedv1.Event) error {
	err := s.ServerStreamingServer.Send(ev)
	if err != nil {
		fmt.Printf("           server: Send of %q for %q returned %v\n", ev.GetBody(), s.topic, err)
	}
	return err
}

// script is a broker whose topic "deploys" has three events and ends.
type script struct{}

func (script) Subscribe(topic string) subscription {
	s := &seat{events: make(chan *feedv1.Event, 3)}
	if topic == "deploys" {
		go func() {
			for _, body := range []string{"started", "halfway", "done"} {
				time.Sleep(150 * time.Millisecond)
				s.events <- &feedv1.Event{Topic: topic, Body: body}
			}
			time.Sleep(450 * time.Millisecond)
			close(s.events)
		}()
	}
	return s
}

// seat is a place in the script. It needs no Close.
type seat struct{ events chan *feedv1.Event }

func (s *seat) Events() <-chan *feedv1.Event { return s.events }
func (*seat) Err() error                     { return nil }
func (*seat) Close()                         {}
