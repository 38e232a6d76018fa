// This program serves three kinds of chat on loopback, sends each 10 MB with
// your pipeline, and prints what each side saw.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
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
		what  string
		after func(n int64, stream chatServer, msg *feedv1.ChatMessage) error // the n-th message
		end   string                                                          // its last reply, if any
	}{
		{"answers each message", func(_ int64, stream chatServer, msg *feedv1.ChatMessage) error {
			return stream.Send(msg)
		}, ""},
		{"answers when all is said", func(int64, chatServer, *feedv1.ChatMessage) error { return nil }, "thanks"},
		{"fails after 500 messages", func(n int64, stream chatServer, msg *feedv1.ChatMessage) error {
			if n == 500 {
				return status.Error(codes.ResourceExhausted, "the disk is full")
			}
			return stream.Send(msg)
		}, ""},
	} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fmt.Printf("A server that %s:\n", peer.what)
		var heard atomic.Int64
		err := talk(ctx, func(stream chatServer) error {
			for {
				msg, err := stream.Recv()
				if errors.Is(err, io.EOF) && peer.end != "" {
					return stream.Send(&feedv1.ChatMessage{Text: peer.end})
				}
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := peer.after(heard.Add(1), stream, msg); err != nil {
					return err
				}
			}
		})
		if err != nil {
			return err
		}
		fmt.Printf("  server: read %d messages\n", heard.Load())
	}
	return nil
}

// talk runs your pipeline against one handler, for at most two seconds. The
// windows are fixed, so that the numbers are the same each time.
func talk(ctx context.Context, handler func(chatServer) error) error {
	const messages = 1000
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true), grpc.StaticStreamWindowSize(65_535))
	feedv1.RegisterFeedServiceServer(srv, &server{chat: handler})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStaticStreamWindowSize(65_535))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	start := time.Now()
	var taken, replies atomic.Int64
	msgs := func(yield func(string) bool) {
		msg := strings.Repeat("x", 10_000)
		for range messages {
			taken.Add(1)
			if !yield(msg) {
				return
			}
		}
	}
	err = pipeline(ctx, feedv1.NewFeedServiceClient(conn), msgs, func(string) { replies.Add(1) })
	fmt.Printf("  client: took %d of %d messages, had %d replies; pipeline returned code %v (%v) after %v\n",
		taken.Load(), messages, replies.Load(), status.Code(err), err, time.Since(start).Round(10*time.Millisecond))
	return nil
}
