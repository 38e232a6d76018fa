// A stream ends because the server returns, because the client leaves, or
// because the network dies. Each of the four calls has words of its own for
// that, and some endings share their words.
//
// The program ends seven streams in seven ways. For each it prints what the
// calls say, and which of two clients and two handlers raises an alarm.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
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

// server is a feed whose Chat is a function.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	chat func(chatServer) error
}

func (s server) Chat(stream chatServer) error { return s.chat(stream) }

// followByError receives until the stream ends, and returns what somebody has
// to know. It looks for the error of a context, which no call on a stream
// returns: whenever it is cancelled, somebody is told.
func followByError(stream chatClient) error {
	for {
		_, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
			return nil
		case err != nil:
			return err
		}
	}
}

// follow receives until the stream ends, and returns what somebody has to
// know. ctx is the context that the stream was opened with.
func follow(ctx context.Context, stream chatClient) error {
	for {
		_, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil // the server returned nil
		case err != nil && endedBy(ctx, err):
			return nil // ctx ended: somebody on this side wanted that
		case err != nil:
			return err
		}
	}
}

// endedBy reports whether ctx ended the stream. The code alone does not tell,
// a server can send it too; nor ctx alone, it can end when the stream is over.
// Ask at once: if the server sent Canceled and you cancel later, the two agree.
func endedBy(ctx context.Context, err error) bool {
	deadline, ok := ctx.Deadline()
	switch status.Code(err) {
	case codes.Canceled:
		return errors.Is(ctx.Err(), context.Canceled)
	case codes.DeadlineExceeded: // Recv can be ahead of the timer that ends ctx
		return ok && !time.Now().Before(deadline)
	}
	return false
}

// listenByEOF receives until the stream ends. Whatever is no io.EOF raises an
// alarm, so each client that leaves in its own way does.
func listenByEOF(stream chatServer, alarm func(error)) error {
	for {
		_, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			alarm(err)
			return err
		}
	}
}

// listen receives until the stream ends, and raises an alarm unless the
// client is gone.
func listen(stream chatServer, alarm func(error)) error {
	for {
		_, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil // the client has said all, and still listens
		case err != nil && gone(err):
			return err // nobody is left to read it
		case err != nil:
			alarm(err)
			return err
		}
	}
}

// gone reports whether err, of Recv or Send, says that the stream is lost. Why
// it is, no handler learns: a cancel, a deadline, a connection that broke and a
// stopped server share their codes. Unavailable is what Send says of a lost
// connection. An error of another call can have these codes too: gone is not
// for those.
func gone(err error) bool {
	code := status.Code(err)
	return code == codes.Canceled || code == codes.DeadlineExceeded || code == codes.Unavailable
}

// A scene is an open stream in the hands of who is going to end it.
type scene struct {
	answer func(error) // makes the handler return
	cancel func()
	cut    func()
	conn   *grpc.ClientConn
	srv    *grpc.Server
}

// An ending is a way to end a stream.
type ending struct {
	name  string
	bring func(scene) // nil: the stream has a deadline, which passes
}

func endings() []ending {
	return []ending{
		{"server returns nil", func(s scene) { s.answer(nil) }},
		{"server fails: Aborted", func(s scene) { s.answer(status.Error(codes.Aborted, "not now")) }},
		{"client cancels", func(s scene) { s.cancel() }},
		{"deadline passes", nil},
		{"network is cut", func(s scene) { s.cut() }},
		{"connection is closed", func(s scene) { s.conn.Close() }},
		{"server is stopped", func(s scene) { s.srv.Stop() }},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second/3); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	say("Seven streams, seven endings. Who raises an alarm?")
	for _, e := range endings() {
		if ctx.Err() != nil {
			break
		}
		client, handler, err := play(ctx, e)
		if err != nil {
			return err
		}
		say("%s", e.name)
		say("  client   %s", client)
		say("  handler  %s", handler)
	}
	return ctx.Err()
}

// play opens a stream, ends it, and returns what each side saw.
func play(ctx context.Context, e ending) (client, handler string, err error) {
	opened, answer, heard := make(chan bool, 1), make(chan error, 1), make(chan string, 1)
	s, end, err := serve(server{chat: func(stream chatServer) error {
		opened <- true
		alarm, alarmByEOF := bell(nil), bell(nil)
		ended := make(chan error, 1)
		go func() { ended <- listen(stream, func(err error) { alarm = bell(err) }) }()
		select {
		case err := <-answer: // listen ends with the stream
			heard <- "has returned"
			return err
		case err := <-ended: // Recv repeats what it said
			listenByEOF(stream, func(err error) { alarmByEOF = bell(err) })
			heard <- saw(stream.Send, err, "listen", alarm, "listenByEOF", alarmByEOF)
			return err
		}
	}})
	if err != nil {
		return "", "", err
	}
	defer end()
	timeout := time.Minute
	if e.bring == nil {
		timeout = 20 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := feedv1.NewFeedServiceClient(s.conn).Chat(ctx)
	if err == nil {
		select {
		case <-opened:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil { // a machine that is very busy, or somebody who leaves
		return fmt.Sprint("opened no stream: ", err), "was not called", nil
	}
	s.cancel, s.answer = cancel, func(err error) { answer <- err }
	if e.bring != nil { // while both sides wait in Recv
		defer time.AfterFunc(time.Millisecond, func() { e.bring(s) }).Stop()
	}
	alarm, alarmByError := bell(follow(ctx, stream)), bell(followByError(stream))
	_, err = stream.Recv()
	return saw(stream.Send, err, "follow", alarm, "followByError", alarmByError), <-heard, nil
}

// saw says what one side saw of the end.
func saw(send func(*feedv1.ChatMessage) error, recv error, alarms ...any) string {
	sent := send(&feedv1.ChatMessage{})
	return fmt.Sprintf("Recv %-17sSend %-13s", word(recv), word(sent)) +
		fmt.Sprintf("%s: %s, %s: %s", alarms...)
}

func bell(err error) string {
	if err != nil {
		return "alarm"
	}
	return "quiet"
}

// word is what a caller has of an error.
func word(err error) string {
	if errors.Is(err, io.EOF) {
		return "EOF"
	}
	return status.Code(err).String()
}

// serve starts a server on loopback and connects to it. The returned
// function ends both and waits for the handlers.
func serve(svc feedv1.FeedServiceServer) (scene, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return scene{}, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	var tcp atomic.Pointer[net.TCPConn]
	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
			if err != nil {
				return nil, err
			}
			tcp.Store(c.(*net.TCPConn))
			return c, nil
		}))
	if err != nil {
		srv.Stop()
		return scene{}, nil, fmt.Errorf("client: %w", err)
	}
	cut := func() {
		tcp.Load().SetLinger(0) // makes Close a reset: no FIN, no HTTP/2 frame
		tcp.Load().Close()
	}
	end := func() { conn.Close(); srv.Stop() }
	return scene{cut: cut, conn: conn, srv: srv}, end, nil
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
