// A pump is a goroutine that receives from a stream and hands on what it got.
// It waits in two places: in Recv, which the end of the stream ends, and in
// the send to the channel of its reader, of which gRPC knows nothing.
//
// In the program clients and handlers leave while a line waits for them, once
// with a pump that waits for its reader alone, and once with one that also
// hears when its reader leaves.
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

type (
	chatClient = grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]
	chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]
)

// A receiver is either end of a Chat.
type receiver interface {
	Recv() (*feedv1.ChatMessage, error)
}

// An inbox is what a pump has for its reader.
type inbox struct {
	// lines delivers what was received. To close it is the last that the pump
	// does: who sees it closed knows that the goroutine has ended.
	lines <-chan string

	// err says, once lines is closed, why the pump ended: nil for io.EOF.
	err error
}

// wait throws away what the pump still hands over, and returns when it has
// ended. A client cancels first. A handler returns and does not wait: only its
// return ends the stream.
func (in *inbox) wait() {
	for range in.lines {
	}
}

// pumpBlindly starts a pump that relies on the end of the stream alone.
func pumpBlindly(_ context.Context, stream receiver) *inbox {
	lines := make(chan string)
	in := &inbox{lines: lines}
	go func() {
		defer close(lines)
		for {
			msg, err := stream.Recv() // waits for the stream
			if err != nil {
				in.err = notEOF(err)
				return
			}
			lines <- msg.GetText() // waits for the reader
		}
	}()
	return in
}

// pump starts one that also gives up when ctx ends. A client hands in the
// context with which it opened the stream, and cancels it to leave. A handler
// hands in stream.Context(), which ends when the handler returns.
func pump(ctx context.Context, stream receiver) *inbox {
	lines := make(chan string)
	in := &inbox{lines: lines}
	go func() {
		defer close(lines)
		for {
			msg, err := stream.Recv()
			if err != nil {
				in.err = notEOF(err)
				return
			}
			select {
			case lines <- msg.GetText():
			case <-ctx.Done():
				in.err = ctx.Err()
				return
			}
		}
	}()
	return in
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// A pumpFunc is one of the two.
type pumpFunc func(ctx context.Context, stream receiver) *inbox

// hear says hello and returns when it has heard one reply.
func hear(ctx context.Context, client feedv1.FeedServiceClient, pump pumpFunc) (*inbox, error) {
	stream, err := client.Chat(ctx)
	if err != nil {
		return nil, err
	}
	in := pump(ctx, stream)
	stream.Send(says("hello")) // if this fails, in.err says why
	if _, ok := <-in.lines; !ok {
		return in, in.err
	}
	return in, nil
}

// server is a feed whose Chat is one of the handlers below.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	chat func(chatServer) error
}

func (s server) Chat(stream chatServer) error { return s.chat(stream) }

// answerTwice has two replies to the first line, and stays.
func answerTwice(stream chatServer) error {
	if _, err := stream.Recv(); err != nil {
		return err
	}
	for _, text := range []string{"hello", "anything else?"} {
		if err := stream.Send(says(text)); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// takeOne returns a handler that takes one line, is busy with it until the
// room closes, and leaves.
func takeOne(pump pumpFunc, closed <-chan struct{}) func(chatServer) error {
	return func(stream chatServer) error {
		in := pump(stream.Context(), stream)
		if _, ok := <-in.lines; !ok {
			return in.err
		}
		select {
		case <-closed:
			return nil
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func says(text string) *feedv1.ChatMessage { return &feedv1.ChatMessage{Text: text} }

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
	const chats = 20
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	for _, side := range []struct {
		what  string
		leave func(context.Context, pumpFunc, int, time.Duration) (int, error)
	}{
		{"clients take one reply of two, cancel, and close their connection", clientsLeave},
		{"handlers take one line of two, and return", handlersLeave},
	} {
		say("%d %s:", chats, side.what)
		for _, way := range []struct {
			name string
			pump pumpFunc
		}{{"pumpBlindly", pumpBlindly}, {"pump", pump}} {
			n, err := side.leave(ctx, way.pump, chats, max(pace, 20*time.Millisecond))
			if err != nil {
				return err
			}
			say("  %-11s  %2d pumps held a line until somebody read it", way.name, n)
		}
	}
	return ctx.Err()
}

// clientsLeave holds n chats in which the client leaves while a reply waits
// for it, and says how many pumps that leaves behind. delay is time for the
// replies to arrive.
func clientsLeave(ctx context.Context, pump pumpFunc, n int, delay time.Duration) (int, error) {
	client, end, err := serve(server{chat: answerTwice})
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	var left []*inbox
	for len(left) < n && err == nil {
		var in *inbox
		if in, err = hear(ctx, client, pump); err == nil {
			left = append(left, in)
		}
	}
	pause(ctx, delay)
	cancel()
	end()
	return holding(left), err
}

// handlersLeave does the same for handlers.
func handlersLeave(ctx context.Context, pump pumpFunc, n int, delay time.Duration) (int, error) {
	inboxes, closed := make(chan *inbox, n), make(chan struct{})
	follow := func(ctx context.Context, stream receiver) *inbox {
		in := pump(ctx, stream)
		inboxes <- in
		return in
	}
	client, end, err := serve(server{chat: takeOne(follow, closed)})
	if err != nil {
		return 0, err
	}
	for i := 0; i < n && err == nil; i++ {
		var stream chatClient
		if stream, err = client.Chat(ctx); err == nil {
			stream.Send(says("hello"))
			stream.Send(says("anything else?"))
		}
	}
	pause(ctx, delay)
	close(closed)
	end() // all handlers have returned
	close(inboxes)
	var left []*inbox
	for in := range inboxes {
		left = append(left, in)
	}
	return holding(left), err
}

// holding counts the pumps that wait for a reader although their streams have
// ended, and is that reader.
func holding(left []*inbox) (n int) {
	for _, in := range left {
		if _, held := <-in.lines; held {
			n++
		}
		in.wait()
	}
	return n
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
	pause(ctx, pace)
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
