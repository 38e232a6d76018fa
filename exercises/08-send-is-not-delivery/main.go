// This program serves four kinds of Ingest on loopback, gives each of them five
// events with your ingest, and prints what each side knows afterwards.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type ingestServer = grpc.BidiStreamingServer[feedv1.Event, feedv1.Ack]

// server is a feed that has an Ingest and nothing else.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	ingest func(*server, ingestServer) error
	stored []string // read it when the handler has ended
}

func (s *server) Ingest(stream ingestServer) error { return s.ingest(s, stream) }

// store keeps an event, which takes a while.
func (s *server) store(ev *feedv1.Event) {
	time.Sleep(time.Millisecond)
	s.stored = append(s.stored, ev.GetId())
}

// each stores and acknowledges one event after the other.
func each(s *server, stream ingestServer) error {
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.store(ev)
		if err := stream.Send(&feedv1.Ack{Id: ev.GetId()}); err != nil {
			return err
		}
	}
}

// batches stores and acknowledges two events at a time, and at the half-close
// what is left.
func batches(s *server, stream ingestServer) error {
	var batch []*feedv1.Event
	for {
		ev, err := stream.Recv()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err == nil {
			batch = append(batch, ev)
		}
		if err != nil || len(batch) == 2 {
			for _, ev := range batch {
				s.store(ev)
				if err := stream.Send(&feedv1.Ack{Id: ev.GetId()}); err != nil {
					return err
				}
			}
			batch = nil
		}
		if err != nil {
			return nil
		}
	}
}

// upTo acknowledges two events, stores a third, and ends the stream with err.
func upTo(end error) func(*server, ingestServer) error {
	return func(s *server, stream ingestServer) error {
		for i := range 3 {
			ev, err := stream.Recv()
			if err != nil {
				return err
			}
			s.store(ev)
			if i == 2 {
				break
			}
			if err := stream.Send(&feedv1.Ack{Id: ev.GetId()}); err != nil {
				return err
			}
		}
		return end
	}
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
	for _, peer := range []struct {
		what   string
		ingest func(*server, ingestServer) error
	}{
		{"acknowledges each event", each},
		{"acknowledges two at a time, and the rest at the half-close", batches},
		{"fails before its third ack", upTo(status.Error(codes.Unavailable, "the server dies"))},
		{"ends with OK before its third ack", upTo(nil)},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := send(ctx, peer.what, peer.ingest); err != nil {
			return err
		}
	}
	return nil
}

// send runs your ingest against one handler, for at most a second.
func send(ctx context.Context, what string, handler func(*server, ingestServer) error) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feed := &server{ingest: handler}
	feedv1.RegisterFeedServiceServer(srv, feed)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		srv.Stop()
		return fmt.Errorf("client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var events []*feedv1.Event
	for id := range 5 {
		events = append(events, &feedv1.Event{Id: fmt.Sprint(id + 1), Topic: "alerts"})
	}
	acked, err := ingest(ctx, feedv1.NewFeedServiceClient(conn), events)
	conn.Close()
	srv.Stop() // waits for the handler
	fmt.Printf("A server that %s:\n", what)
	fmt.Printf("  client: ingest returned %q, error %v\n", acked, err)
	fmt.Printf("  server: stored %q\n", feed.stored)
	return nil
}
