// This program runs your leaks over loopback, on clients that leave something
// behind and on clients that do not, and prints what it says of each.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"

	"google.golang.org/grpc"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A listener is what bufconn.Listen returns. The check has one that can cut
// its connections, this program one that uses TCP.
type listener interface {
	net.Listener
	DialContext(context.Context) (net.Conn, error)
}

type overTCP struct{ net.Listener }

func (lis overTCP) DialContext(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", lis.Addr().String())
}

// server is a feed of topics with one event. They stay silent after it, except
// for the topic "over", which ends.
type server struct {
	feedv1.UnimplementedFeedServiceServer
}

func (server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	if err := stream.Send(&feedv1.Event{Id: "1", Topic: req.GetTopic()}); err != nil {
		return err
	}
	if req.GetTopic() == "over" {
		return nil
	}
	<-stream.Context().Done()
	return stream.Context().Err()
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
	for _, client := range []struct {
		does string
		leak bool
		use  func(context.Context, feedv1.FeedServiceClient)
	}{
		{"reads its stream to the end", false, func(ctx context.Context, feed feedv1.FeedServiceClient) {
			receive(ctx, feed, "over", 2)
		}},
		{"cancels its stream", false, func(ctx context.Context, feed feedv1.FeedServiceClient) {
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			receive(ctx, feed, "alerts", 1)
		}},
		{"leaves its stream", true, func(ctx context.Context, feed feedv1.FeedServiceClient) {
			receive(ctx, feed, "alerts", 1)
		}},
		{"leaves a stream that the server has ended", true, func(ctx context.Context, feed feedv1.FeedServiceClient) {
			receive(ctx, feed, "over", 1)
		}},
		{"leaves a goroutine of its own", true, func(ctx context.Context, _ feedv1.FeedServiceClient) {
			go func() { <-ctx.Done() }()
		}},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		ctx, cancel := context.WithCancel(ctx)
		left := leaks(overTCP{lis}, server{}, func(feed feedv1.FeedServiceClient) { client.use(ctx, feed) })
		cancel() // ends what the client has left
		verdict := "right"
		if left != nil != client.leak {
			verdict = "WRONG"
		}
		fmt.Printf("%s: a client that %s\n", verdict, client.does)
		fmt.Printf("       your leaks returned %s\n", firstLines(left))
	}
	return nil
}

// receive takes n messages, or what comes in their place, from a stream.
func receive(ctx context.Context, feed feedv1.FeedServiceClient, topic string, n int) {
	stream, err := feed.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		fmt.Printf("       Watch: %v\n", err)
		return
	}
	for range n {
		stream.Recv()
	}
}

// firstLines is what fits of an error.
func firstLines(err error) string {
	lines := strings.Split(fmt.Sprint(err), "\n")
	if len(lines) > 2 {
		lines = append(lines[:2], "…")
	}
	return strings.Join(lines, "\n       ")
}
