// A deadline is for a whole RPC. On a stream it does not ask whether events
// still flow: when it comes, the stream is over.
//
// The program watches a feed under a deadline that was meant for the opening,
// under a timer that bounds the opening alone, and under that timer and a
// service config's timeout. Then it opens streams that nobody answers.
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

type (
	watchServer = grpc.ServerStreamingServer[feedv1.Event]
	watchClient = grpc.ServerStreamingClient[feedv1.Event]

	// A watcher is one of the two functions that are compared.
	watcher = func(ctx context.Context, client feedv1.FeedServiceClient, topic string,
		within time.Duration, handle func(*feedv1.Event), opts ...grpc.CallOption) error
)

// server is a feed with an event each interval, for ever. Nobody answers for
// its topic "stalled".
type server struct {
	feedv1.UnimplementedFeedServiceServer
	every time.Duration
}

// Watch sends its header at once: to the client it is the sign that somebody
// has taken the stream, which the first event may give hours later.
func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	if req.GetTopic() == "stalled" {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	for id := 1; ; id++ {
		select {
		case <-time.After(s.every):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		ev := &feedv1.Event{Id: fmt.Sprint(id), Topic: req.GetTopic()}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
}

// watchWithin gives all that it does one deadline, as one does for a unary
// call. It cannot be taken back when the stream is open.
func watchWithin(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
	within time.Duration, handle func(*feedv1.Event), opts ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic}, opts...)
	if err != nil {
		return err
	}
	return recv(stream, handle)
}

// watch bounds the opening by a timer, which can be stopped. From then on
// nothing here ends the stream before ctx ends; the timeout of a service config
// still does. When client.Watch returns, the request is on its way, no more.
// Header waits for the server, and grpc-go's returns no error, ever: Recv tells
// what happened.
func watch(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
	within time.Duration, handle func(*feedv1.Event), opts ...grpc.CallOption,
) error {
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(within, cancel)
	stream, err := client.Watch(streamCtx, &feedv1.WatchRequest{Topic: topic}, opts...)
	why := status.Convert(err).Message() // the last connection error, if there was one
	if err == nil {
		stream.Header()
		why = "no header in time"
	}
	if !timer.Stop() { // it cancels, or has, and gRPC calls that Canceled
		if ctx.Err() != nil { // so has the caller
			return status.FromContextError(ctx.Err()).Err()
		}
		return status.Errorf(codes.DeadlineExceeded, "not open within %v: %s", within, why)
	}
	if err != nil {
		return err
	}
	return recv(stream, handle)
}

// recv hands on events until the stream has ended.
func recv(stream watchClient, handle func(*feedv1.Event)) error {
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		handle(ev)
	}
}

// config is a service config: all methods of the feed get the timeout, in
// seconds, except Watch, which has an entry of its own.
func config(timeout time.Duration, forWatch bool) string {
	entry := ""
	if !forWatch {
		entry = `{"name": [{"service": "feed.v1.FeedService", "method": "Watch"}]},`
	}
	return fmt.Sprintf(`{"methodConfig": [%s
		{"name": [{"service": "feed.v1.FeedService"}], "timeout": "%.3fs"}
	]}`, entry, timeout.Seconds())
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
	within := max(pace, 15*time.Millisecond) // stands for a minute
	srv, conn, end, err := serve(&server{every: within / 5}, config(within, true))
	if err != nil {
		return err
	}
	defer end()
	plain, configured := conn[0], conn[1]

	// try watches until the stream ends, or until it has seen ten events.
	try := func(what string, watch watcher, client feedv1.FeedServiceClient, topic string,
		within time.Duration, opts ...grpc.CallOption) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		start, events := time.Now(), 0
		err := watch(ctx, client, topic, within, func(*feedv1.Event) {
			if events++; events == 10 {
				cancel()
			}
		}, opts...)
		took := time.Since(start).Round(time.Millisecond)
		if events >= 10 {
			say("  %-24s %d events in %v, then the reader had enough", what+":", events, took)
			return
		}
		st := status.Convert(err)
		say("  %-24s %d events in %v, then %v: %s", what+":", events, took, st.Code(), st.Message())
	}

	say("A feed with an event each %v:", within/5)
	try("watchWithin", watchWithin, plain, "deploys", within)
	try("watch", watch, plain, "deploys", within)
	try("watch, service config", watch, configured, "deploys", within)
	say("A topic for which nobody answers:")
	try("watch", watch, plain, "stalled", within)
	srv.Stop()
	say("No server:")
	try("watch", watch, plain, "deploys", within)
	try("watch, WaitForReady", watch, plain, "deploys", within, grpc.WaitForReady(true))
	return ctx.Err()
}

// serve starts a server on loopback and connects to it twice, the second time
// with a service config. end ends all and waits for the handlers.
func serve(s *server, config string) (
	srv *grpc.Server, clients [2]feedv1.FeedServiceClient, end func(), err error,
) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, clients, nil, fmt.Errorf("listen: %w", err)
	}
	srv = grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, s)
	go srv.Serve(lis) // returns when srv is stopped

	end = srv.Stop
	for i, config := range []string{"{}", config} {
		conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithDefaultServiceConfig(config),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			end()
			return nil, clients, nil, fmt.Errorf("client: %w", err)
		}
		before := end
		end = func() { conn.Close(); before() }
		clients[i] = feedv1.NewFeedServiceClient(conn)
	}
	return srv, clients, end, nil
}

// say prints a line and gives the reader time for it. To a reader who is
// leaving it says nothing.
func say(ctx context.Context, w io.Writer, pace time.Duration, format string, args ...any) {
	if ctx.Err() != nil {
		return
	}
	fmt.Fprintf(w, format+"\n", args...)
	select {
	case <-time.After(pace):
	case <-ctx.Done():
	}
}
