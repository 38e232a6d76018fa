// This program serves four kinds of chat on loopback, talks to each with your
// chat, and prints what each side saw.
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

type chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]

// server is a feed that has a Chat and nothing else.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	chat func(chatServer) error
}

func (s *server) Chat(stream chatServer) error { return s.chat(stream) }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	for _, peer := range []struct {
		what string
		chat func(chatServer) error
	}{
		{"answers each line", func(stream chatServer) error {
			return hearAll(stream, func(line string) error { return say(stream, "echo: "+line) })
		}},
		{"speaks first", func(stream chatServer) error {
			if err := say(stream, "welcome"); err != nil {
				return err
			}
			return hearAll(stream, func(line string) error { return say(stream, "echo: "+line) })
		}},
		{"answers when all is said", func(stream chatServer) error {
			n := 0
			if err := hearAll(stream, func(string) error { n++; return nil }); err != nil {
				return err
			}
			return say(stream, fmt.Sprintf("%d lines", n))
		}},
		{"closes the room after the first line", func(stream chatServer) error {
			return hearAll(stream, func(string) error { return status.Error(codes.FailedPrecondition, "the room is closed") })
		}},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("A server that %s:\n", peer.what)
		if err := talk(ctx, peer.chat); err != nil {
			return err
		}
	}
	return nil
}

// talk runs your chat against one handler, for at most a second.
func talk(ctx context.Context, handler func(chatServer) error) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, &server{chat: handler})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	start := time.Now()
	replies, err := chat(ctx, feedv1.NewFeedServiceClient(conn), []string{"hello", "world", "bye"})
	fmt.Printf("  client: chat returned %q, code %v after %v\n", replies, status.Code(err), time.Since(start).Round(10*time.Millisecond))
	return nil
}

// hearAll hands each line to f until the client has said all.
func hearAll(stream chatServer, f func(line string) error) error {
	for {
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
		if err := f(msg.GetText()); err != nil {
			return err
		}
	}
}

func say(stream chatServer, text string) error {
	return stream.Send(&feedv1.ChatMessage{From: "server", Text: text})
}
