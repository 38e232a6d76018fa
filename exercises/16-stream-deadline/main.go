// This program serves a feed on loopback, follows three of its topics with
// your tail, all at once, and prints what happens when. It takes 8 seconds.
package main

import (
	"context"
	"fmt"
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

// openWithin is how long an opening may take.
const openWithin = 5 * time.Second

// feed has an event each 2 seconds. Nobody answers for its topic "stalled",
// and "typo" does not exist.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
}

func (feed) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	switch req.GetTopic() {
	case "typo":
		return status.Error(codes.NotFound, "no such topic")
	case "stalled":
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	if err := stream.SendHeader(nil); err != nil { // accepted
		return err
	}
	for id := 1; ; id++ {
		select {
		case <-time.After(2 * time.Second):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(&feedv1.Event{Id: fmt.Sprint(id), Topic: req.GetTopic()}); err != nil {
			return err
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, feed{})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	time.AfterFunc(8*time.Second, cancel) // the reader has seen enough
	start := time.Now()
	at := func() time.Duration { return time.Since(start).Round(10 * time.Millisecond) }
	var tails sync.WaitGroup
	for _, topic := range []string{"deploys", "stalled", "typo"} {
		tails.Go(func() {
			err := tail(ctx, client, topic, func(ev *feedv1.Event) {
				fmt.Printf("%6v  %-8s event %s\n", at(), topic, ev.GetId())
			})
			fmt.Printf("%6v  %-8s tail returned: %v\n", at(), topic, err)
		})
	}
	tails.Wait()
	return nil
}
