// A server with four streams gets your shutdown. The handler of the first one
// returns when it is drained, the second when it has sent five events, the third
// when its stream has ended, and the fourth hears nothing. The program prints
// what each client has and when, and what shutdown returns.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server has a topic for each kind of handler.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	beat     time.Duration
	draining chan struct{} // closed by the drain that shutdown calls
	quiet    chan struct{} // closed at the end, for the deaf one
}

func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	if err := stream.Send(&feedv1.Event{}); err != nil {
		return err
	}
	ended := stream.Context().Done()
	switch req.GetTopic() {
	case "drained":
		select {
		case <-s.draining:
			return status.Error(codes.Unavailable, "going away, come back")
		case <-ended:
		}
	case "five events":
		for range 4 {
			time.Sleep(s.beat)
			if err := stream.Send(&feedv1.Event{}); err != nil {
				return err
			}
		}
		return nil
	case "context":
		<-ended
		time.Sleep(s.beat / 4) // to tidy up
	case "deaf":
		<-s.quiet
	}
	return stream.Context().Err()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, 2*time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run shuts the server down within budget, once with a deaf handler and once
// without.
func run(ctx context.Context, w io.Writer, budget time.Duration) error {
	topics := []string{"drained", "five events", "context", "deaf"}
	for n := len(topics); n > 1 && ctx.Err() == nil; n-- {
		if err := show(ctx, w, budget, topics[:n]); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func show(ctx context.Context, w io.Writer, budget time.Duration, topics []string) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &server{beat: budget / 5, draining: make(chan struct{}), quiet: make(chan struct{})}
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, s)
	go srv.Serve(lis) // returns when srv is stopped
	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		srv.Stop()
		return fmt.Errorf("client: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer srv.Stop()
	defer conn.Close()
	defer cancel()
	defer close(s.quiet)

	start := time.Now()
	var mu sync.Mutex
	over := false
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if over { // what the program does to end is no part of the story
			return
		}
		fmt.Fprintf(w, "%6v  %s\n", time.Since(start).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
	for _, topic := range topics {
		stream, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		if err == nil {
			_, err = stream.Recv()
		}
		if err != nil {
			return err
		}
		all.Go(func() {
			events := 1
			for err == nil {
				if _, err = stream.Recv(); err == nil {
					events++
				}
			}
			say("the client of %q has %d events, then: %v", topic, events, err)
		})
	}
	say("shutdown within %v is called, with the streams %q", budget, topics)
	result := make(chan error, 1)
	go func() {
		result <- shutdown(srv, sync.OnceFunc(func() {
			say("drain is called")
			close(s.draining)
		}), budget)
	}()
	select {
	case err := <-result:
		if err != nil {
			say("shutdown returns the error %q", err)
		} else {
			say("shutdown returns nil")
		}
	case <-time.After(2*budget + time.Second):
		say("shutdown has not returned, %v late: the program stops the server", budget)
	case <-ctx.Done():
	}
	mu.Lock()
	defer mu.Unlock()
	over = true
	return nil
}
