// This program serves your Chat on loopback, lets clients come and go in
// different ways, and prints who is here. One of them is a process of its own,
// which is killed.
package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// server is a feed that has a Chat and nothing else.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	presence *presence
}

// clientAddr is the variable by which this program knows that it is a client.
const clientAddr = "CHAT_CLIENT_ADDR"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if addr := os.Getenv(clientAddr); addr != "" {
		err = client(ctx, addr)
	} else {
		err = run(ctx)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s := &server{presence: newPresence()}
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, talking{s})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := dial(lis.Addr().String())
	if err != nil {
		return err
	}
	defer conn.Close()

	show := func(what string) {
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
			fmt.Printf("%-34s here: %v\n", what, s.presence.names())
		}
	}
	anna, _, err := chat(ctx, conn, "anna")
	if err != nil {
		return err
	}
	_, hangUp, err := chat(ctx, conn, "ben")
	if err != nil {
		return err
	}
	show("anna and ben have joined")
	anna.CloseSend()
	show("anna has half-closed")
	hangUp()
	show("ben has cancelled")

	older, err := start(ctx, lis.Addr().String())
	if err != nil {
		return err
	}
	newer, err := start(ctx, lis.Addr().String())
	if err != nil {
		return err
	}
	show("two processes are carol")
	kill(older)
	show("the older one was killed")
	kill(newer)
	show("both were killed")
	return ctx.Err()
}

func kill(cmd *exec.Cmd) {
	cmd.Process.Kill() // SIGKILL on Unix
	cmd.Wait()         // its "signal: killed" is no news
}

// talking prints how the handler ends.
type talking struct{ *server }

func (t talking) Chat(stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]) error {
	err := t.server.Chat(stream)
	fmt.Printf("  Chat returned %v\n", err)
	return err
}

func dial(addr string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return conn, nil
}

// chat opens a stream under a name and waits for its first answer.
func chat(ctx context.Context, conn *grpc.ClientConn, name string) (
	grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage], context.CancelFunc, error,
) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := feedv1.NewFeedServiceClient(conn).Chat(ctx)
	if err == nil {
		err = stream.Send(&feedv1.ChatMessage{From: name, Text: "hello"})
	}
	if err == nil {
		_, err = stream.Recv()
	}
	if err != nil {
		cancel()
		return nil, nil, fmt.Errorf("chat: %w", err)
	}
	return stream, cancel, nil
}

// client is the process that is killed.
func client(ctx context.Context, addr string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	stream, cancel, err := chat(ctx, conn, "carol")
	if err != nil {
		return err
	}
	defer cancel()
	fmt.Println("chatting")
	_, err = stream.Recv()
	return err
}

// start starts a client process and returns when it chats.
func start(ctx context.Context, addr string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), clientAddr+"="+addr)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a client: %w", err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return nil, fmt.Errorf("a client did not come up: %w", err)
	}
	return cmd, nil
}
