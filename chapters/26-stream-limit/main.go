// A server may limit how many streams are open at once on a connection. The
// stream that is one too many gets no error: it waits in the client for a place.
//
// The program fills a connection with two places and asks for a third. Then it
// cancels a stream whose handler does not listen: the client has its place
// back, the server does not, and the whole connection stands still.
package main

import (
	"cmp"
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

type (
	handler     = func(*server, watchServer) error
	watchServer = grpc.ServerStreamingServer[feedv1.Event]
	watchClient = grpc.ServerStreamingClient[feedv1.Event]
	chatServer  = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]
	chatClient  = grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]
)

// server has topics without events, and a chat that echoes.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	quiet  chan struct{} // closed when the topics end; nil: they never do
	handle handler
}

// Watch sends its header at once: the sign that somebody has taken the stream.
func (s *server) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	return s.handle(s, stream)
}

// watchDeaf waits for its topic alone. When its client is gone it keeps its
// place.
func (s *server) watchDeaf(watchServer) error {
	<-s.quiet
	return nil
}

// watch gives its place back when its client is gone.
func (s *server) watch(stream watchServer) error {
	select {
	case <-s.quiet:
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

func (s *server) Chat(stream chatServer) error {
	for {
		msg, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}

// openWithin bounds the opening and not the stream, as in chapter 16: the wait
// for a connection with a place in Watch, and the one for the server in Header.
// Call cancel when you are done with the stream.
func openWithin(
	ctx context.Context, client feedv1.FeedServiceClient, topic string, within time.Duration,
) (stream watchClient, cancel context.CancelFunc, err error) {
	streamCtx, cancel := context.WithCancel(ctx)
	timer := time.AfterFunc(within, cancel)
	stream, err = client.Watch(streamCtx, &feedv1.WatchRequest{Topic: topic})
	missing := "no connection with a place"
	if err == nil {
		stream.Header()
		missing = "a place, but no header"
	}
	if !timer.Stop() { // it has ended the opening
		if err = status.FromContextError(ctx.Err()).Err(); err == nil {
			err = status.Errorf(codes.DeadlineExceeded, "%s within %v", missing, within)
		}
	}
	if err != nil {
		cancel()
		return nil, nil, err
	}
	return stream, cancel, nil
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
	say := func(format string, args ...any) {
		if ctx.Err() != nil {
			return // the reader is leaving
		}
		fmt.Fprintf(w, format+"\n", args...)
		select {
		case <-time.After(pace):
		case <-ctx.Done():
		}
	}
	within := max(pace, 15*time.Millisecond)
	if err := full(ctx, within, say); err != nil {
		return err
	}
	if err := frozen(ctx, "watch", (*server).watch, within, say); err != nil {
		return err
	}
	return frozen(ctx, "watchDeaf", (*server).watchDeaf, within, say)
}

// full asks for a third stream where there are two places.
func full(ctx context.Context, within time.Duration, say func(string, ...any)) error {
	clients, end, err := serve(&server{handle: (*server).watch}, 2)
	if err != nil {
		return err
	}
	defer end()
	ctx, cancelAll := context.WithCancel(ctx)
	defer cancelAll()

	say("Two places on a connection, two streams. The third:")
	var cancelLast context.CancelFunc
	for range 2 {
		if _, cancelLast, err = openWithin(ctx, clients[0], "deploys", time.Minute); err != nil {
			return err
		}
	}
	start := time.Now()
	_, _, err = openWithin(ctx, clients[0], "tests", within)
	say("  openWithin after %v: %v", since(start), err)
	start = time.Now()
	if _, _, err = openWithin(ctx, clients[1], "tests", time.Minute); err != nil {
		return err
	}
	say("  openWithin on another connection after %v: open", since(start))
	start = time.Now()
	time.AfterFunc(within, cancelLast)
	if _, err = clients[0].Watch(ctx, &feedv1.WatchRequest{Topic: "tests"}); err != nil {
		return err
	}
	say("  client.Watch with no bound after %v: open, as another stream was cancelled", since(start))
	return nil
}

// frozen cancels a stream and opens another, on a connection that also has a
// chat, and asks how the chat is.
func frozen(
	ctx context.Context, name string, handle handler, within time.Duration, say func(string, ...any),
) error {
	s := &server{quiet: make(chan struct{}), handle: handle}
	clients, end, err := serve(s, 2)
	if err != nil {
		return err
	}
	defer end()
	endTopics := sync.OnceFunc(func() { close(s.quiet) })
	defer endTopics() // the deaf handler, too, or end waits for ever
	ctx, cancelAll := context.WithCancel(ctx)
	defer cancelAll()

	say("Two places, a chat and a stream of %s. The stream is cancelled:", name)
	chat, err := clients[0].Chat(ctx)
	if err != nil {
		return err
	}
	_, cancel, err := openWithin(ctx, clients[0], "deploys", time.Minute)
	if err != nil {
		return err
	}
	cancel()
	_, _, err = openWithin(ctx, clients[0], "builds", within)
	say("  the next stream: %v", cmp.Or(status.Convert(err).Message(), "open"))
	start, what := time.Now(), ""
	release := time.AfterFunc(within, endTopics)
	if err := echo(chat); err != nil {
		return err
	}
	if !release.Stop() {
		what = ", when the topic has ended and with it the handler"
	}
	say("  the chat's echo: after %v%s", since(start), what)
	return nil
}

// echo says a line and waits until it comes back.
func echo(chat chatClient) error {
	if err := chat.Send(&feedv1.ChatMessage{Text: "are you there?"}); err != nil {
		return err
	}
	_, err := chat.Recv()
	return err
}

func since(start time.Time) time.Duration { return time.Since(start).Round(time.Millisecond) }

// serve starts a server with a limit on loopback and connects to it twice: each
// ClientConn has a connection of its own. end ends all and waits for the
// handlers.
func serve(s *server, limit uint32) (clients [2]feedv1.FeedServiceClient, end func(), err error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return clients, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.MaxConcurrentStreams(limit), grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, s)
	go srv.Serve(lis) // returns when srv is stopped

	end = srv.Stop
	for i := range clients {
		conn, err := grpc.NewClient(lis.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			end()
			return clients, nil, fmt.Errorf("client: %w", err)
		}
		before := end
		end = func() { conn.Close(); before() }
		clients[i] = feedv1.NewFeedServiceClient(conn)
	}
	return clients, end, nil
}
