// Both sides send and neither receives: a client that sends all its lines
// before it reads a reply, and a handler that answers each line before it reads
// the next. Each Send waits for the other side's Recv.
//
// The program runs that pair with windows of two sizes, and then a client and a
// handler that receive and send at the same time.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type (
	chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]
	chatClient = grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]
)

// server is a feed whose Chat is one of the handlers below.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	chat func(chatServer) error
}

func (s *server) Chat(stream chatServer) error { return s.chat(stream) }

// sendThenReceive reads no reply before it has sent every line.
func sendThenReceive(stream chatClient, lines []string) ([]string, error) {
	for _, line := range lines {
		if stream.Send(&feedv1.ChatMessage{Text: line}) != nil {
			break // the stream has ended; Recv tells how
		}
	}
	stream.CloseSend()
	return receive(stream)
}

// sendWhileReceiving leaves the replies to a goroutine of their own: whatever
// Send waits for, they are read. It returns when both directions have ended.
func sendWhileReceiving(stream chatClient, lines []string) (replies []string, err error) {
	var receiver sync.WaitGroup
	receiver.Go(func() { replies, err = receive(stream) })
	for _, line := range lines {
		if stream.Send(&feedv1.ChatMessage{Text: line}) != nil {
			break // the stream has ended; Recv tells how
		}
	}
	stream.CloseSend()
	receiver.Wait()
	return replies, err
}

// receive reads all replies, up to the end of the stream.
func receive(stream chatClient) (replies []string, err error) {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return replies, nil
		}
		if err != nil {
			return replies, err
		}
		replies = append(replies, msg.GetText())
	}
}

// echo answers each line before it reads the next one. There is nothing wrong
// with it, as long as its client reads.
func echo(stream chatServer) error {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(msg); err != nil { // blocks while the client does not read
			return err
		}
	}
}

// echoFromQueue reads on whatever Send waits for. So no client can lock it, and
// each client decides how much memory it takes.
func echoFromQueue(stream chatServer) error {
	var (
		mu    sync.Mutex
		queue []*feedv1.ChatMessage
		end   error
		more  = make(chan struct{}, 1) // queue has grown, or end is set
	)
	go func() { // its Recv ends when the handler has returned, if not before
		for {
			msg, err := stream.Recv()
			mu.Lock()
			if end = err; err == nil {
				queue = append(queue, msg)
			}
			mu.Unlock()
			select {
			case more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	}()
	for range more {
		mu.Lock()
		batch, ended := queue, end
		queue = nil
		mu.Unlock()
		for _, msg := range batch {
			if err := stream.Send(msg); err != nil {
				return err
			}
		}
		if errors.Is(ended, io.EOF) {
			return nil
		}
		if ended != nil {
			return ended
		}
	}
	return nil // more is never closed
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const (
	kib  = 1 << 10
	text = kib - 8 // with gRPC's 5 bytes and protobuf's 3 a line takes 1 KiB
)

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	say("A client has 500 lines, of 1 KiB on the wire, for a server that echoes each one.")
	for _, way := range []struct {
		what   string
		window int32
		client func(chatClient, []string) ([]string, error)
		server func(chatServer) error
	}{
		{"sends all, then receives", 64*kib - 1, sendThenReceive, echo},
		{"the same, windows of 128 KiB", 128 * kib, sendThenReceive, echo},
		{"receives in a goroutine", 64*kib - 1, sendWhileReceiving, echo},
		{"sends all, to a handler with a queue", 64*kib - 1, sendThenReceive, echoFromQueue},
	} {
		t := &talk{}
		replies, err := t.run(ctx, way.window, way.client, way.server)
		if err != nil && status.Code(err) != codes.Canceled {
			return err
		}
		state := fmt.Sprintf("returned %d replies", len(replies))
		if t.stuck {
			state = fmt.Sprintf("stuck: the server has answered %d, the client has read none", t.answered.Load())
		}
		say("  %-36s  %3d sent, %s", way.what, t.sent.Load(), state)
	}
	return ctx.Err()
}

// A talk counts the Sends that have returned nil on either side.
type talk struct {
	sent, answered atomic.Int64
	stuck          bool
}

// run lets client talk to server until it returns, or until nothing has moved
// for a while: then it cancels.
func (t *talk) run(ctx context.Context, window int32,
	client func(chatClient, []string) ([]string, error), handler func(chatServer) error,
) (replies []string, err error) {
	conn, end, err := serve(window, &server{chat: func(stream chatServer) error {
		return handler(countedServer{stream, &t.answered})
	}})
	if err != nil {
		return nil, err
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := feedv1.NewFeedServiceClient(conn).Chat(ctx)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		replies, err = client(countedClient{stream, &t.sent}, lines(500, text))
	}()
	for last := int64(0); ; {
		select {
		case <-done:
			return replies, err
		case <-time.After(15 * time.Millisecond):
		}
		now := t.sent.Load() + t.answered.Load()
		if t.stuck = now > 0 && now == last; t.stuck {
			cancel() // ends the Send on either side
			<-done
			return replies, err
		}
		last = now
	}
}

type countedServer struct {
	chatServer
	n *atomic.Int64
}

func (s countedServer) Send(msg *feedv1.ChatMessage) error {
	err := s.chatServer.Send(msg)
	if err == nil {
		s.n.Add(1)
	}
	return err
}

type countedClient struct {
	chatClient
	n *atomic.Int64
}

func (s countedClient) Send(msg *feedv1.ChatMessage) error {
	err := s.chatClient.Send(msg)
	if err == nil {
		s.n.Add(1)
	}
	return err
}

func lines(n, size int) []string {
	return slices.Repeat([]string{strings.Repeat("x", size)}, n)
}

// serve starts a server on loopback and connects to it. The returned function
// ends both and waits for the handlers. The windows are fixed, so that the
// numbers are the same each time; left alone, an estimator moves them.
func serve(window int32, svc feedv1.FeedServiceServer) (*grpc.ClientConn, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true),
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window))
	if err != nil {
		srv.Stop()
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	return conn, func() { conn.Close(); srv.Stop() }, nil
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
