// This program serves topics on loopback, watches them on one connection with
// your watchAll, and prints what each side saw.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// feed has an event each 100 ms in every topic. Topic "builds" ends after the
// second, "broken" fails after the fourth, and the others end after the tenth.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	start time.Time
	open  atomic.Int32 // handlers
}

func (f *feed) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) (err error) {
	topic := req.GetTopic()
	f.open.Add(1)
	defer func() {
		f.say("server: %-7s ends with %v, %d are open", topic, status.Code(err), f.open.Add(-1))
	}()
	for id := 1; id <= 10; id++ {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		}
		if err := stream.Send(&feedv1.Event{Id: fmt.Sprint(id)}); err != nil {
			return err
		}
		switch {
		case topic == "builds" && id == 2:
			return nil
		case topic == "broken" && id == 4:
			return status.Error(codes.DataLoss, "the log is damaged")
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
		what   string
		topics []string
		fails  int           // the call of handle that returns an error; 0 is none
		leaves time.Duration // when the caller cancels
	}{
		{"Three topics, of which one ends early", []string{"deploys", "alerts", "builds"}, 0, time.Minute},
		{"Three topics, of which one fails", []string{"deploys", "alerts", "broken"}, 0, time.Minute},
		{"Three topics, and the fifth call of handle fails", []string{"deploys", "alerts", "builds"}, 5, time.Minute},
		{"Two topics, and a caller that cancels after 350 ms", []string{"deploys", "alerts"}, 0, 350 * time.Millisecond},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Println(call.what + ":")
		if err := try(ctx, call.topics, call.fails, call.leaves); err != nil {
			return err
		}
	}
	return nil
}

// try calls your watchAll once.
func try(ctx context.Context, topics []string, fails int, leaves time.Duration) error {
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
	var running, calls atomic.Int32
	err = watchAll(ctx, feedv1.NewFeedServiceClient(conn), topics, func(topic string, ev *feedv1.Event) error {
		n := calls.Add(1)
		f.say("client: handles %s %s, %d at a time", topic, ev.GetId(), running.Add(1))
		time.Sleep(5 * time.Millisecond)
		running.Add(-1)
		if int(n) == fails {
			return errors.New("the disk is full")
		}
		return nil
	})
	f.say("client: watchAll returned %v", err)
	time.Sleep(50 * time.Millisecond) // a cancel travels
	f.say("server: %d handlers still run", f.open.Load())
	return nil
}
