// This program holds three sessions on loopback with your session, and prints
// what the server, the reader of out and the caller saw.
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
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]

// server is a feed that has a Chat and nothing else. It echoes the given
// number of lines, and then ends the chat.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	lines int
}

func (s *server) Chat(stream chatServer) error {
	for n := 0; n < s.lines; n++ {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Println("  server: the client has half-closed")
			return nil
		}
		if err != nil {
			fmt.Printf("  server: the stream is gone: %v\n", err)
			return err
		}
		fmt.Printf("  server: heard %q\n", msg.GetText())
		if err := stream.Send(&feedv1.ChatMessage{From: "server", Text: "echo: " + msg.GetText()}); err != nil {
			return err
		}
	}
	fmt.Println("  server: ends the chat")
	return nil
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
	const all = 1000
	for _, s := range []struct {
		what    string
		server  *server
		closeIn bool
		reads   int // replies that the reader of out takes
	}{
		{"All is well, and in is closed after the last line", &server{lines: all}, true, all},
		{"The server ends the chat after two lines, and in stays open", &server{lines: 2}, false, all},
		{"The reader of out leaves after one reply, and the caller cancels", &server{lines: all}, false, 1},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("%s:\n", s.what)
		if err := hold(ctx, s.server, s.closeIn, s.reads); err != nil {
			return err
		}
	}
	return nil
}

// hold runs your session against one server. Its caller cancels after half a
// second, and waits for half a second more.
func hold(ctx context.Context, svc *server, closeIn bool, reads int) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, time.Second/2)
	defer cancel()
	in, out := make(chan string), make(chan string)
	over, returned, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	defer close(over) // ends what follows
	start := time.Now()
	go func() {
		defer close(returned)
		err := session(ctx, feedv1.NewFeedServiceClient(conn), in, out)
		fmt.Printf("  caller: session returned error %v after %v\n", err, time.Since(start).Round(10*time.Millisecond))
	}()
	go func() { // feeds in
		for _, line := range []string{"hello", "world", "bye"} {
			select {
			case in <- line:
			case <-over:
				return
			}
		}
		if closeIn {
			close(in)
		}
	}()
	go func() { // reads out
		for range reads {
			select {
			case text, ok := <-out:
				if !ok {
					fmt.Println("  reader: out is closed")
					close(closed)
					return
				}
				fmt.Printf("  reader: %q\n", text)
			case <-over:
				return
			}
		}
		fmt.Println("  reader: has left")
		close(closed)
	}()
	patience := time.After(time.Second)
	for _, wait := range []struct {
		what string
		done <-chan struct{}
	}{{"session has not returned", returned}, {"out is not closed", closed}} {
		select {
		case <-wait.done:
		case <-patience:
			fmt.Printf("  caller: %s after a second\n", wait.what)
			return nil
		}
	}
	return nil
}
