// This program ends streams on loopback in seven ways, and prints what your
// clientEnding and your handlerEnding make of what each side saw.
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

// An ending is what the end of a stream means to one of its sides. All words
// are about the stream that ctx opened, or whose handler this is.
type ending int

const (
	_ ending = iota

	// Completed is for the client. The server ended the stream with OK: Recv
	// said io.EOF, or CloseAndRecv returned no error.
	Completed

	// CanceledHere is for the client. ctx was cancelled, and the code of err
	// is the one for that.
	CanceledHere

	// DeadlineHere is for the client. The deadline of ctx has passed, and the
	// code of err is the one for that.
	DeadlineHere

	// Unavailable is for the client. err has that code: the server sent it, or
	// there is no connection. err does not tell which.
	Unavailable

	// HalfClosed is for the handler. The client has sent all, and still
	// listens.
	HalfClosed

	// PeerGone is for the handler. The stream is lost: the client cancelled,
	// its deadline passed, the connection broke or was closed, or this server
	// was stopped. No handler can tell which.
	PeerGone

	// Failed is for both, and means all else. For the client: the server sent
	// another status, such as a Canceled or a DeadlineExceeded of its own, or
	// this process closed the connection under the stream. For the handler: a
	// message could not be received or sent, and the client is still there.
	Failed
)

func (e ending) String() string {
	names := []string{"no ending", "Completed", "CanceledHere", "DeadlineHere", "Unavailable",
		"HalfClosed", "PeerGone", "Failed"}
	if e < 0 || int(e) >= len(names) {
		return fmt.Sprintf("ending(%d)", int(e))
	}
	return names[e]
}

type (
	chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]
	chatClient = grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]
)

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

// A scene is an open stream in the hands of who is going to end it.
type scene struct {
	stream chatClient
	cancel context.CancelFunc
	conn   *grpc.ClientConn
	srv    *grpc.Server
}

func run(ctx context.Context) error {
	halfClose := func(s scene) { s.stream.CloseSend() }
	for _, end := range []struct {
		what   string
		bring  func(scene)
		answer error // what the handler returns after a half-close
	}{
		{"the client half-closes, the server returns nil", halfClose, nil},
		{"the client half-closes, the server fails", halfClose, status.Error(codes.Aborted, "not now")},
		{"the client half-closes, the server was cancelled itself", halfClose, context.Canceled},
		{"the client cancels", func(s scene) { s.cancel() }, nil},
		{"the deadline passes", func(scene) {}, nil},
		{"the connection is closed", func(s scene) { s.conn.Close() }, nil},
		{"the server is stopped", func(s scene) { s.srv.Stop() }, nil},
	} {
		fmt.Println(end.what + ":")
		if err := play(ctx, end.bring, end.answer); err != nil {
			return err
		}
	}
	return nil
}

// play opens a stream, ends it, and asks both functions.
func play(ctx context.Context, end func(scene), answer error) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	opened := make(chan bool, 1)
	feedv1.RegisterFeedServiceServer(srv, &server{chat: func(stream chatServer) error {
		opened <- true
		_, err := stream.Recv()
		fmt.Printf("  handler  %-12v Recv: %v\n", handlerEnding(err), err)
		if errors.Is(err, io.EOF) {
			return answer
		}
		return err
	}})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	ctx, cancel := context.WithTimeout(ctx, time.Second/4)
	defer cancel()
	stream, err := feedv1.NewFeedServiceClient(conn).Chat(ctx)
	if err != nil {
		return err
	}
	select {
	case <-opened:
	case <-ctx.Done():
		return ctx.Err()
	}
	end(scene{stream, cancel, conn, srv})
	_, err = stream.Recv()
	fmt.Printf("  client   %-12v Recv: %v\n", clientEnding(ctx, err), err)
	return nil
}
