// A server with your interceptor has six streams, which end in six ways. The
// program prints what the clients see, and your lines.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

type chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]

// server has a Chat that echoes, but for some lines.
type server struct {
	feedv1.UnimplementedFeedServiceServer
}

func (server) Chat(stream chatServer) error {
	for {
		msg, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch msg.GetText() {
		case "fail":
			return status.Error(codes.NotFound, "no such room")
		case "fail without a status":
			return errors.New("the disk is full")
		case "panic":
			panic("at your request")
		case "wait":
			<-stream.Context().Done()
			return stream.Context().Err()
		}
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second/2); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run has one chat after the other, with a pace between them.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	out := &lockedWriter{w: w}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.StreamInterceptor(streamInterceptor(log)), grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, server{})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	for _, last := range []string{"half-close", "fail", "fail without a status", "panic", "wait", "cancel"} {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		err := chat(ctx, feedv1.NewFeedServiceClient(conn), last, max(pace, 20*time.Millisecond))
		fmt.Fprintf(out, "%q: the client has %v: %v\n\n", last, status.Code(err), err)
		pause(ctx, pace)
	}
	return nil
}

// chat sends two lines and then the last, and returns how the stream ended:
// nil is a good end.
func chat(ctx context.Context, client feedv1.FeedServiceClient, last string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if last == "wait" {
		ctx, cancel = context.WithTimeout(ctx, patience)
		defer cancel()
	}
	stream, err := client.Chat(ctx)
	if err != nil {
		return err
	}
	for _, text := range []string{"hello", "is anybody there?"} {
		stream.Send(&feedv1.ChatMessage{Text: text}) // if it fails, Recv says why
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	switch last {
	case "half-close":
		stream.CloseSend()
	case "cancel":
		cancel()
	default:
		stream.Send(&feedv1.ChatMessage{Text: last})
	}
	if _, err := stream.Recv(); err != io.EOF {
		return err
	}
	return nil
}

// lockedWriter lets one goroutine write at a time.
type lockedWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
