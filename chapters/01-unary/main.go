// A unary call is the smallest stream: one request, one response, one status.
//
// The program publishes events to a feed: to a handler that names its errors
// and to one that does not, with a deadline and without one.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// feed is what the two servers below share. Handlers run at the same
// time, one goroutine a call, so what they share must be safe for that.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	lastID atomic.Int64

	// store keeps an event. It is a field so that the story below can
	// make it slow.
	store func(context.Context, *feedv1.Event) error
}

var errNoTopic = errors.New("topic is empty")

// insert stores an event and fails as Go code does, with Go errors.
func (f *feed) insert(
	ctx context.Context, req *feedv1.PublishRequest,
) (*feedv1.PublishResponse, error) {
	if req.GetTopic() == "" {
		return nil, errNoTopic
	}
	ev := &feedv1.Event{
		Id:    strconv.FormatInt(f.lastID.Add(1), 10),
		Topic: req.GetTopic(),
		Body:  req.GetBody(),
		At:    timestamppb.Now(),
	}
	if err := f.store(ctx, ev); err != nil {
		return nil, fmt.Errorf("insert: %w", err)
	}
	return &feedv1.PublishResponse{Id: ev.Id, At: ev.At}, nil
}

// bareServer leaves the code to gRPC, which makes Unknown of most errors.
type bareServer struct{ feed }

func (s *bareServer) Publish(
	ctx context.Context, req *feedv1.PublishRequest,
) (*feedv1.PublishResponse, error) {
	return s.insert(ctx, req)
}

// server gives each failure the code that a client can act on.
type server struct{ feed }

func (s *server) Publish(
	ctx context.Context, req *feedv1.PublishRequest,
) (*feedv1.PublishResponse, error) {
	resp, err := s.insert(ctx, req)
	switch {
	case err == nil:
		return resp, nil
	case errors.Is(err, errNoTopic):
		return nil, status.Error(codes.InvalidArgument, err.Error())
	case ctx.Err() != nil: // the caller has left: no fault of ours
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	// A real server logs err here. The client learns nothing of it: it
	// names parts of the server.
	return nil, status.Error(codes.Internal, "the event was not stored")
}

// publishWithoutDeadline waits for as long as the server likes.
func publishWithoutDeadline(
	ctx context.Context, client feedv1.FeedServiceClient, topic, body string,
) (string, error) {
	resp, err := client.Publish(ctx, &feedv1.PublishRequest{Topic: topic, Body: body})
	if err != nil {
		return "", err
	}
	return resp.GetId(), nil
}

// publish waits for at most the given time, and less if ctx ends first.
func publish(
	ctx context.Context, client feedv1.FeedServiceClient, topic, body string,
	atMost time.Duration,
) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	return publishWithoutDeadline(ctx, client, topic, body)
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
	stored := func(context.Context, *feedv1.Event) error { return nil }
	named, closeNamed, err := serve(&server{feed{store: stored}})
	if err != nil {
		return err
	}
	defer closeNamed()
	bare, closeBare, err := serve(&bareServer{feed{store: stored}})
	if err != nil {
		return err
	}
	defer closeBare()
	slow, closeSlow, err := serve(&server{feed{store: untilDone}})
	if err != nil {
		return err
	}
	defer closeSlow()
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }

	say("Two calls that end well:")
	for _, body := range []string{"deploy started", "deploy done"} {
		id, err := publish(ctx, named, "alerts", body, time.Second)
		say("  publish %-16q id %q, error %v", body, id, err)
	}

	say("An empty topic, to a handler with bare errors and to one with codes:")
	_, err = publish(ctx, bare, "", "?", time.Second)
	say("  bare error: code %v", status.Code(err))
	_, err = publish(ctx, named, "", "?", time.Second)
	say("  status:     code %v", status.Code(err))

	say("A store that hangs:")
	start := time.Now()
	_, err = publish(ctx, slow, "alerts", "?", 50*time.Millisecond)
	say("  with a deadline of 50ms: %v after %v",
		status.Code(err), time.Since(start).Round(10*time.Millisecond))
	patience, giveUp := context.WithCancel(ctx)
	defer giveUp()
	defer time.AfterFunc(pace, giveUp).Stop()
	_, err = publishWithoutDeadline(patience, slow, "alerts", "?")
	say("  without one, until you cancel: %v", status.Code(err))
	return ctx.Err()
}

// untilDone is a store that hangs, but not beyond its caller.
func untilDone(ctx context.Context, _ *feedv1.Event) error {
	<-ctx.Done()
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
