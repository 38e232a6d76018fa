// This program serves three topics on loopback, watches them with your
// watchIdle, and prints what each side saw.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// ErrIdle says that no event has come for too long.
var ErrIdle = errors.New("silent for too long")

const idle = 300 * time.Millisecond

// feed has an event each 100 ms in every topic. Topic "alerts" falls silent
// after the third, the others end after the tenth.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	start time.Time
}

func (f *feed) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) (err error) {
	defer func() { f.say("server: the handler returns %v", err) }()
	for id := 1; id <= 10; id++ {
		var next <-chan time.Time // of a silent topic: never
		if req.GetTopic() != "alerts" || id <= 3 {
			next = time.After(100 * time.Millisecond)
		}
		select {
		case <-next:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(&feedv1.Event{Id: fmt.Sprint(id), Topic: req.GetTopic()}); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) say(format string, args ...any) {
	fmt.Printf("  %4d ms  %s\n", time.Since(f.start).Milliseconds(), fmt.Sprintf(format, args...))
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
	for _, call := range []struct {
		what, topic string
		takes       time.Duration // to handle event 2
		leaves      time.Duration // when the caller cancels
	}{
		{"A topic of a second that is never silent", "deploys", 0, time.Minute},
		{"A topic that falls silent after event 3", "alerts", 0, time.Minute},
		{"A topic whose event 2 takes half a second to handle", "deploys", 500 * time.Millisecond, time.Minute},
		{"A caller that cancels after half a second", "alerts", 0, 500 * time.Millisecond},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("%s, and a limit of %v:\n", call.what, idle)
		if err := try(ctx, call.topic, call.takes, call.leaves); err != nil {
			return err
		}
	}
	return nil
}

// try calls your watchIdle once.
func try(ctx context.Context, topic string, takes, leaves time.Duration) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	f := &feed{start: time.Now()}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, f)
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(leaves, cancel).Stop()
	err = watchIdle(ctx, feedv1.NewFeedServiceClient(conn), topic, idle, func(ev *feedv1.Event) {
		f.say("client: handles event %s", ev.GetId())
		if ev.GetId() == "2" {
			time.Sleep(takes)
		}
	})
	f.say("client: watchIdle returned %v", err)
	time.Sleep(50 * time.Millisecond) // a cancel travels
	return nil
}
