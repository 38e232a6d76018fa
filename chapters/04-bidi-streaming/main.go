// A bidirectional RPC is two streams of messages under one status: one from
// the client, one from the server, and neither waits for the other.
//
// The program talks to three servers that speak at different times, with a
// client that expects one reply to each line and with one that expects none.
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
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]

// server is a feed whose Chat is one of the handlers below.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	chat func(chatServer) error
}

func (s server) Chat(stream chatServer) error { return s.chat(stream) }

// echo answers each line as it comes.
func echo(stream chatServer) error {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil // the half-close: nothing more will come
		}
		if err != nil {
			return err // the client is gone; nobody reads this
		}
		if err := stream.Send(says("server", "echo: "+msg.GetText())); err != nil {
			return err
		}
	}
}

// greet speaks before it is spoken to.
func greet(stream chatServer) error {
	if err := stream.Send(says("server", "welcome")); err != nil {
		return err
	}
	return echo(stream)
}

// count answers once, when the client has said all.
func count(stream chatServer) error {
	for n := 0; ; n++ {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.Send(says("server", fmt.Sprintf("%d lines", n)))
		}
		if err != nil {
			return err
		}
	}
}

// chatInLockStep takes the stream for a row of calls: a line, its reply, the
// next line. It works for as long as the server agrees.
func chatInLockStep(
	ctx context.Context, client feedv1.FeedServiceClient, lines []string,
) (replies []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	for _, line := range lines {
		if err := stream.Send(says("client", line)); err != nil {
			return replies, err
		}
		msg, err := stream.Recv() // waits for a reply that nobody promised
		if err != nil {
			return replies, err
		}
		replies = append(replies, msg.GetText())
	}
	return replies, stream.CloseSend()
}

// chat sends the lines and receives what comes, both at once, until the
// server ends the stream.
func chat(
	ctx context.Context, client feedv1.FeedServiceClient, lines []string,
) (replies []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream on every way out
	stream, err := client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	// This goroutine owns Recv and, until it is done, replies.
	done := make(chan error, 1)
	go func() {
		for {
			msg, err := stream.Recv()
			if err != nil {
				done <- err
				return
			}
			replies = append(replies, msg.GetText())
		}
	}()
	for _, line := range lines {
		if stream.Send(says("client", line)) != nil {
			break // the stream has ended; Recv tells why
		}
	}
	stream.CloseSend() // lets the server's Recv say io.EOF
	if err := <-done; !errors.Is(err, io.EOF) {
		return replies, err
	}
	return replies, nil
}

func says(from, text string) *feedv1.ChatMessage {
	return &feedv1.ChatMessage{From: from, Text: text}
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
	for _, peer := range []struct {
		what string
		chat func(chatServer) error
	}{
		{"A server that answers each line:", echo},
		{"A server that speaks first:", greet},
		{"A server that answers when all is said:", count},
	} {
		say(peer.what)
		if err := meet(ctx, peer.chat, max(pace, 20*time.Millisecond), say); err != nil {
			return err
		}
	}
	say("How a chat ends well, link by link:")
	return endWell(ctx, say)
}

// meet lets both clients talk to a server. patience bounds the lock-step, which
// the third server keeps waiting.
func meet(
	ctx context.Context, handler func(chatServer) error, patience time.Duration,
	say func(string, ...any),
) error {
	client, end, err := serve(server{chat: handler})
	if err != nil {
		return err
	}
	defer end()
	lines := []string{"hello", "world", "bye"}
	bounded, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	replies, err := chatInLockStep(bounded, client, lines)
	say("  in lock-step: %q, code %v", replies, status.Code(err))
	replies, err = chat(ctx, client, lines)
	say("  both at once: %q, code %v", replies, status.Code(err))
	return ctx.Err()
}

// endWell half-closes and follows the end from link to link.
func endWell(ctx context.Context, say func(string, ...any)) error {
	client, end, err := serve(server{chat: func(stream chatServer) error {
		err := echo(stream)
		if err == nil {
			say("  server: Recv said io.EOF, the handler returns nil")
		}
		return err
	}})
	if err != nil {
		return err
	}
	defer end()
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	say("  client: CloseSend")
	stream.CloseSend()
	if _, err := stream.Recv(); errors.Is(err, io.EOF) {
		say("  client: Recv said io.EOF, the stream is gone on both sides")
	}
	return ctx.Err()
}

// serve starts a server on loopback and connects to it. The returned
// function ends both and waits for the handlers.
func serve(svc feedv1.FeedServiceServer) (feedv1.FeedServiceClient, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(),
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
	select {
	case <-time.After(pace):
	case <-ctx.Done():
	}
}
