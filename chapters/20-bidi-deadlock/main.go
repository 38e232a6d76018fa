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
	send(stream, lines)
	return receive(stream)
}

// sendWhileReceiving leaves the replies to a goroutine of their own: whatever
// Send waits for, they are read. It returns when both directions have ended.
func sendWhileReceiving(stream chatClient, lines []string) (replies []string, err error) {
	var receiver sync.WaitGroup
	receiver.Go(func() { replies, err = receive(stream) })
	send(stream, lines)
	receiver.Wait()
	return replies, err
}

// send sends all lines, unless the stream ends before.
func send(stream chatClient, lines []string) {
	for _, line := range lines {
		if stream.Send(&feedv1.ChatMessage{Text: line}) != nil {
			return // the stream has ended; Recv tells how
		}
	}
	stream.CloseSend() // its error is always nil
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

// echoFromQueue reads on whatever Send waits for. So its client can always
// send, and decides alone how much memory that takes here.
func echoFromQueue(stream chatServer) error {
	var (
		mu    sync.Mutex
		queue []*feedv1.ChatMessage
		end   error               // what Recv returned at last
		more  = sync.NewCond(&mu) // queue has grown, or end is set
	)
	go func() { // its Recv ends when the handler has returned, if not before
		for {
			msg, err := stream.Recv()
			mu.Lock()
			if end = err; err == nil {
				queue = append(queue, msg)
			}
			mu.Unlock()
			more.Signal()
			if err != nil {
				return
			}
		}
	}()
	for {
		mu.Lock()
		for len(queue) == 0 && end == nil {
			more.Wait()
		}
		batch, err := queue, end
		queue = nil
		mu.Unlock()
		for _, msg := range batch {
			if err := stream.Send(msg); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const kib = 1 << 10
const text = kib - 8 // with gRPC's 5 bytes and protobuf's 3 a line takes 1 KiB

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) {
		fmt.Fprintf(w, format+"\n", args...)
		select {
		case <-time.After(pace):
		case <-ctx.Done():
		}
	}
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
		var sent, answered atomic.Int64
		limit := pace + 50*time.Millisecond // nothing else ends a deadlock
		replies, err := talk(ctx, limit, way.window, func(stream chatClient) ([]string, error) {
			return way.client(countedClient{stream, &sent}, lines(500, text))
		}, func(stream chatServer) error {
			return way.server(countedServer{stream, &answered})
		})
		end := fmt.Sprintf("%d replies read", len(replies))
		if status.Code(err) == codes.DeadlineExceeded {
			end = "then stuck until its deadline"
		} else if err != nil {
			return err
		}
		say("  %-36s  %3d sent, %3d answered, %s", way.what, sent.Load(), answered.Load(), end)
	}
	return nil
}

// talk runs client and handler on one stream over loopback, which ends after
// limit, and returns when both have. The windows are fixed, so that the numbers
// are the same each time; left alone, an estimator moves them.
func talk(ctx context.Context, limit time.Duration, window int32,
	client func(chatClient) ([]string, error), handler func(chatServer) error,
) ([]string, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true),
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window))
	feedv1.RegisterFeedServiceServer(srv, &server{chat: handler})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window))
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stream, err := feedv1.NewFeedServiceClient(conn).Chat(ctx)
	if err != nil {
		return nil, fmt.Errorf("Chat: %w", err)
	}
	return client(stream)
}

type countedServer struct {
	chatServer
	n *atomic.Int64
}

func (s countedServer) Send(msg *feedv1.ChatMessage) error {
	return count(s.n, s.chatServer.Send(msg))
}

type countedClient struct {
	chatClient
	n *atomic.Int64
}

func (s countedClient) Send(msg *feedv1.ChatMessage) error {
	return count(s.n, s.chatClient.Send(msg))
}

func count(n *atomic.Int64, err error) error {
	if err == nil {
		n.Add(1)
	}
	return err
}

func lines(n, size int) []string {
	return slices.Repeat([]string{strings.Repeat("x", size)}, n)
}
