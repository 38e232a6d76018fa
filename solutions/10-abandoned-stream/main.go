// This program serves a feed on loopback, looks for events in it with your
// firstMatch, and prints what is left on each side.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// errNoMatch says that a topic has ended well and that no event of it matched.
var errNoMatch = errors.New("no event matches")

// feed has an event each 20 ms. Its topic "deploys" ends after five.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	handlers atomic.Int32 // that run
}

func (f *feed) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	f.handlers.Add(1)
	defer f.handlers.Add(-1)
	for id := 1; ; id++ {
		select {
		case <-time.After(20 * time.Millisecond):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if req.GetTopic() == "deploys" && id > 5 {
			return nil
		}
		if err := stream.Send(&feedv1.Event{Id: fmt.Sprint(id), Topic: req.GetTopic()}); err != nil {
			return err
		}
	}
}

// streams counts the client's streams that have begun and not ended.
type streams struct{ open atomic.Int32 }

// count is an interceptor.
func (s *streams) count(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s.open.Add(1)
	end := grpc.OnFinish(func(error) { s.open.Add(-1) }) // also if open fails
	return open(ctx, desc, conn, method, append(slices.Clone(opts), end)...)
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
	server, begun := &feed{}, &streams{}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, server)
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithStreamInterceptor(begun.count),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)

	for _, search := range []struct {
		what, topic string
		match       func(*feedv1.Event) (bool, error)
	}{
		{"event 3 of a topic without an end", "alerts", func(ev *feedv1.Event) (bool, error) { return ev.GetId() == "3", nil }},
		{"the last event of a topic", "deploys", func(ev *feedv1.Event) (bool, error) { return ev.GetId() == "5", nil }},
		{"an event that is not there", "deploys", func(*feedv1.Event) (bool, error) { return false, nil }},
		{"with a match that fails", "alerts", func(*feedv1.Event) (bool, error) { return false, errors.New("cannot decode it") }},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		ev, err := firstMatch(ctx, client, search.topic, search.match)
		time.Sleep(100 * time.Millisecond) // a cancel travels
		fmt.Printf("%-34s event %q, error %v\n", search.what+":", ev.GetId(), err)
		fmt.Printf("%-34s streams left on the client: %d, handlers left on the server: %d\n", "",
			begun.open.Load(), server.handlers.Load())
	}
	return nil
}
