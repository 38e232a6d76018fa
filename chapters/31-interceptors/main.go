// An interceptor is the one place for what every stream needs. It stands
// around the whole handler on a server, and around the opening alone on a
// client.
//
// In the program one interceptor makes a status of a panic, two end streams
// whose token has expired (one of them only some), and two say on the client
// how a stream went (one of them too early).
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type chatServer = grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage]
type chatClient = grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]

// server answers each line with its first word.
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
		msg.Text = strings.Fields(msg.GetText())[0] // an empty line has none: panic
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
}

// A report is for the people of the server.
type report = func(method string, panicked any, stack []byte)

// recoverPanics makes a handler's panic the end of one stream. Its client has
// Internal, and report has the rest.
func recoverPanics(report report) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
		defer func() {
			if r := recover(); r != nil {
				report(info.FullMethod, r, debug.Stack())
				err = status.Error(codes.Internal, "internal error")
			}
		}()
		return handler(srv, stream)
	}
}

// tokens has a new one for each stream that is opened. It says until when it
// is valid, and nothing else.
type tokens struct{ life time.Duration }

func (t tokens) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": time.Now().Add(t.life).Format(time.RFC3339Nano)}, nil
}

func (tokens) RequireTransportSecurity() bool { return false } // this program has no TLS; yours: true

var errExpired = status.Error(codes.Unauthenticated, "no valid token")

// withContext is a stream with another context. All other methods are the
// embedded stream's.
type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s withContext) Context() context.Context { return s.ctx }

// replaceContext ends the handler's context with its token. A handler in Recv
// or Send does not hear of it.
func replaceContext(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return untilExpiry(stream, func(s withContext) error { return handler(srv, s) })
}

// endAtExpiry ends all of the handler's waits with its token.
func endAtExpiry(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return untilExpiry(stream, func(s withContext) error { return handler(srv, expiring{s}) })
}

// untilExpiry hands on the stream with a context that ends with its token.
func untilExpiry(stream grpc.ServerStream, handle func(withContext) error) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	at, err := time.Parse(time.RFC3339Nano, strings.Join(md.Get("authorization"), ""))
	if err != nil || !time.Now().Before(at) {
		return errExpired
	}
	ctx, cancel := context.WithDeadlineCause(stream.Context(), at, errExpired)
	defer cancel()
	err = handle(withContext{stream, ctx})
	if err != nil && context.Cause(ctx) == errExpired {
		return errExpired // and not what the handler made of it
	}
	return err
}

// expiring is a stream whose calls end with its context.
type expiring struct{ withContext }

func (s expiring) RecvMsg(m any) error {
	return s.wait(func() error { return s.ServerStream.RecvMsg(m) })
}

func (s expiring) SendMsg(m any) error {
	return s.wait(func() error { return s.ServerStream.SendMsg(m) })
}

// wait leaves call behind when the token expires: the return of the handler
// ends it. A panic in call (gRPC's code, a codec) is past recoverPanics.
func (s expiring) wait(call func() error) error {
	if context.Cause(s.ctx) == errExpired {
		return errExpired // or a second call would join the one left behind
	}
	done := make(chan error, 1)
	go func() { done <- call() }()
	select {
	case err := <-done:
		return err
	case <-s.ctx.Done():
		if context.Cause(s.ctx) == errExpired {
			return errExpired
		}
		return <-done // the stream has ended, and ends the call
	}
}

// A line is what an interceptor says of a stream.
type line = func(method string, err error, took time.Duration)

// sayOpening says how a stream went when it has been opened.
func sayOpening(say line) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		start := time.Now()
		stream, err := open(ctx, desc, conn, method, opts...)
		say(method, err, time.Since(start))
		return stream, err
	}
}

// sayEnd says it when the stream has ended, whatever has ended it.
func sayEnd(say line) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		start := time.Now()
		end := grpc.OnFinish(func(err error) { say(method, err, time.Since(start)) })
		return open(ctx, desc, conn, method, append(slices.Clip(opts), end)...)
	}
}

// options is what all streams need. Unary calls need interceptors of their own.
func options(expiry grpc.StreamServerInterceptor, report report, life time.Duration, lines ...grpc.StreamClientInterceptor) ([]grpc.ServerOption, []grpc.DialOption) {
	onServer := []grpc.ServerOption{
		grpc.ChainStreamInterceptor(recoverPanics(report)), // first after a log; or a panic ends all streams
		grpc.ChainStreamInterceptor(expiry),                // or a stream outlives its client's rights
	}
	onClient := []grpc.DialOption{
		grpc.WithChainStreamInterceptor(lines...), // or nobody knows how a stream ended
		grpc.WithPerRPCCredentials(tokens{life}),  // or a reopened stream brings an old token
	}
	return onServer, onClient
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
	var mu sync.Mutex // interceptors speak on gRPC's goroutines
	say := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() == nil { // or the reader is leaving
			fmt.Fprintf(w, format+"\n", args...)
			pause(ctx, pace)
		}
	}
	if err := panics(ctx, say); err != nil {
		return err
	}
	life := max(pace, 15*time.Millisecond)
	say("A chat in Recv, and a token that is valid for %v:", life)
	if err := outlives(ctx, "replaceContext", replaceContext, life, say); err != nil {
		return err
	}
	return outlives(ctx, "endAtExpiry", endAtExpiry, life, say)
}

// panics has two chats, of which one makes its handler panic.
func panics(ctx context.Context, say func(string, ...any)) error {
	as := func(name string) line {
		return func(_ string, err error, took time.Duration) {
			say("  %s: %v after %v", name, status.Code(err), took.Round(10*time.Millisecond))
		}
	}
	report := func(_ string, panicked any, _ []byte) { say("  the server's log: %v", panicked) }
	client, end, err := serve(options(endAtExpiry, report, time.Minute, sayOpening(as("sayOpening")), sayEnd(as("sayEnd"))))
	if err != nil {
		return err
	}
	defer end()
	say("Two chats:")
	var chats [2]chatClient
	for i := range chats {
		if chats[i], err = client.Chat(ctx); err != nil {
			return err
		}
	}
	say("The second says an empty line, and its handler panics:")
	if _, err = echo(chats[1], ""); status.Code(err) != codes.Internal {
		return err
	}
	say("  its client: %v", err)
	text, err := echo(chats[0], "hello there")
	if err != nil {
		return err
	}
	say("The first goes on (%q), and ends:", text)
	if err := chats[0].CloseSend(); err != nil {
		return err
	}
	if _, err = chats[0].Recv(); err == io.EOF {
		return nil
	}
	return err
}

// outlives says what becomes of a chat when its token expires. A client that
// has Unauthenticated opens another, which brings a new token.
func outlives(ctx context.Context, name string, expiry grpc.StreamServerInterceptor, life time.Duration, say func(string, ...any)) error {
	client, end, err := serve(options(expiry, func(string, any, []byte) {}, life))
	if err != nil {
		return err
	}
	defer end()
	for wait := 2 * life; ; wait = 0 {
		chat, err := client.Chat(ctx)
		if err != nil {
			return err
		}
		pause(ctx, wait)
		text, err := echo(chat, "here")
		switch status.Code(err) {
		case codes.OK:
			say("  %s, %v later: %q", name, wait, text)
			return nil
		case codes.Unauthenticated:
			say("  %s, %v later: %v; the client opens another", name, wait, err)
		default:
			return err
		}
	}
}

// echo says a line and waits for the answer.
func echo(chat chatClient, text string) (string, error) {
	if err := chat.Send(&feedv1.ChatMessage{Text: text}); err != nil && err != io.EOF {
		return "", err
	}
	msg, err := chat.Recv() // after EOF, too: it says why
	return msg.GetText(), err
}

// serve starts a server on loopback and connects to it. The returned function
// ends both with their streams, and waits for the handlers.
func serve(serving []grpc.ServerOption, dialling []grpc.DialOption) (feedv1.FeedServiceClient, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	conn, err := grpc.NewClient(lis.Addr().String(),
		append(dialling, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		lis.Close()
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	srv := grpc.NewServer(append(serving, grpc.WaitForHandlers(true))...)
	feedv1.RegisterFeedServiceServer(srv, server{})
	go srv.Serve(lis) // returns when srv is stopped
	return feedv1.NewFeedServiceClient(conn), func() { conn.Close(); srv.Stop() }, nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
