// A client stream stays open until it is released, and a return releases
// nothing: the client keeps a goroutine, the server a handler and whatever the
// handler holds.
//
// In the program clients take a few events and leave, in ways that look alike.
// What is left of their streams is counted on both sides while the connection
// is open. Closing it would hide the difference.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type (
	watchServer = grpc.ServerStreamingServer[feedv1.Event]
	watchClient = grpc.ServerStreamingClient[feedv1.Event]
)

// server is a feed. Its topic "deploys" ends after three events, the others
// never end.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	every         time.Duration // between two events
	subscriptions atomic.Int32  // that have not been given back
}

// Watch does all that a handler can: it gives back what it took, and it ends
// with its client. It cannot know that its client has stopped reading.
func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	s.subscriptions.Add(1)
	defer s.subscriptions.Add(-1)
	for id := 1; ; id++ {
		ev := &feedv1.Event{Id: fmt.Sprint(id), Topic: req.GetTopic()}
		if err := stream.Send(ev); err != nil {
			return err
		}
		if req.GetTopic() == "deploys" && id == 3 {
			return nil
		}
		select {
		case <-time.After(s.every):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// takeAndReturn takes n events and forgets the stream.
func takeAndReturn(
	ctx context.Context, client feedv1.FeedServiceClient, topic string, n int,
) ([]*feedv1.Event, error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	return recv(stream, n)
}

// takeAndCloseSend takes CloseSend for Close. It says that this client sends
// nothing more, which Watch has said with the request.
func takeAndCloseSend(
	ctx context.Context, client feedv1.FeedServiceClient, topic string, n int,
) ([]*feedv1.Event, error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	defer stream.CloseSend()
	return recv(stream, n)
}

// openAndCancel returns a stream that it has cancelled: its defer runs before
// the caller can read.
func openAndCancel(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
) (watchClient, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
}

// takeFromAHelper reads what openAndCancel opened.
func takeFromAHelper(
	ctx context.Context, client feedv1.FeedServiceClient, topic string, n int,
) ([]*feedv1.Event, error) {
	stream, err := openAndCancel(ctx, client, topic)
	if err != nil {
		return nil, err
	}
	return recv(stream, n)
}

// take cancels in the scope that reads.
func take(
	ctx context.Context, client feedv1.FeedServiceClient, topic string, n int,
) ([]*feedv1.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // releases the stream on every way out
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	return recv(stream, n)
}

// events is a helper that nobody can misuse: it opens, reads and cancels.
// A loop over it may break, return or panic. An error is the last pair.
func events(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
) iter.Seq2[*feedv1.Event, error] {
	return func(yield func(*feedv1.Event, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // runs when the loop over events ends
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
		for err == nil {
			var ev *feedv1.Event
			if ev, err = stream.Recv(); err == nil && !yield(ev, nil) {
				return
			}
		}
		if !errors.Is(err, io.EOF) {
			yield(nil, err)
		}
	}
}

// takeFromEvents leaves by break.
func takeFromEvents(
	ctx context.Context, client feedv1.FeedServiceClient, topic string, n int,
) (taken []*feedv1.Event, err error) {
	for ev, err := range events(ctx, client, topic) {
		if err != nil {
			return taken, err
		}
		if taken = append(taken, ev); len(taken) == n {
			break
		}
	}
	return taken, nil
}

// recv receives at most n events, and no EOF after them.
func recv(stream watchClient, n int) (taken []*feedv1.Event, err error) {
	for len(taken) < n {
		ev, err := stream.Recv()
		if err != nil {
			return taken, err
		}
		taken = append(taken, ev)
	}
	return taken, nil
}

// streams counts a client's streams that have not been released, as a metric of
// your own would. A stats.Handler would count attempts: a stream whose opening
// is retried has several, and grpc-go v1.85.0 may never end one.
type streams struct{ open atomic.Int32 }

// count is an interceptor. gRPC calls what OnFinish (experimental) is given
// once for each stream: when it is released, or when it could not be opened.
func (s *streams) count(
	ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	s.open.Add(1)
	end := grpc.OnFinish(func(error) { s.open.Add(-1) })
	return open(ctx, desc, conn, method, append(slices.Clone(opts), end)...)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second/2); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	type taker = func(context.Context, feedv1.FeedServiceClient, string, int) (
		[]*feedv1.Event, error)
	for _, story := range []struct {
		title, topic string
		n            int
		ways         []string
		take         []taker
	}{
		{"Clients take 1 event of a topic without an end:", "alerts", 1,
			[]string{"and return", "and CloseSend", "and cancel", "and break"},
			[]taker{takeAndReturn, takeAndCloseSend, take, takeFromEvents}},
		{"Clients take all 3 events of a topic that ends:", "deploys", 3,
			[]string{"but not the EOF", "and cancel"},
			[]taker{takeAndReturn, take}},
		{"A helper opens the stream, with defer cancel():", "alerts", 1,
			[]string{"and returns it"},
			[]taker{takeFromAHelper}},
	} {
		say(story.title)
		for i, take := range story.take {
			const clients = 10
			s, open := &server{every: max(pace/50, time.Millisecond)}, &streams{}
			client, end, err := serve(s, open)
			if err != nil {
				return err
			}
			for range clients {
				if _, err = take(ctx, client, story.topic, story.n); err != nil {
					break
				}
			}
			if err != nil && ctx.Err() == nil {
				say("  %-16s Recv: %v", story.ways[i], status.Code(err))
			}
			pause(ctx, max(pace/5, 5*time.Millisecond)) // a cancel travels
			say("  %-16s streams left on the client: %2d, handlers left on the server: %2d",
				story.ways[i], open.open.Load(), s.subscriptions.Load())
			end()
		}
	}
	return ctx.Err()
}

// serve starts a server on loopback and connects to it. The returned
// function ends both and waits for the handlers.
func serve(s *server, open *streams) (feedv1.FeedServiceClient, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, s)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithStreamInterceptor(open.count),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		srv.Stop()
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	end := func() { conn.Close(); srv.Stop() }
	return feedv1.NewFeedServiceClient(conn), end, nil
}

// say prints a line and gives the reader time for it. To a reader who is
// leaving it says nothing.
func say(ctx context.Context, w io.Writer, pace time.Duration, format string, args ...any) {
	if ctx.Err() != nil {
		return
	}
	fmt.Fprintf(w, format+"\n", args...)
	pause(ctx, pace)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
