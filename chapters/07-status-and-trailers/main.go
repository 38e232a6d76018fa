// Of a Go error a code, a text and details cross the wire, in a status. Beside
// it travels metadata: headers before the first event, trailers at the end.
//
// The program watches topics that end in different ways, through a handler that
// returns whatever error it gets and through one that names its errors, and
// asks for a header, a trailer and a cancel in the wrong way and in the right one.
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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

var errNoTopic = errors.New("no such topic")

// next waits for the next event of a topic. io.EOF: the topic is complete.
type next = func(context.Context) (*feedv1.Event, error)

// relay is what the two servers below share.
type relay struct {
	feedv1.UnimplementedFeedServiceServer

	// open looks a topic up. It and its next fail as Go code does: with errors
	// of their own, with those of a context, and with the status that a
	// server behind them has answered.
	open func(ctx context.Context, topic string) (next, error)
}

// bareServer returns the errors that it gets, and tells too late what it tells.
type bareServer struct{ relay }

func (s *bareServer) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	next, err := s.open(stream.Context(), req.GetTopic())
	if err != nil {
		return err
	}
	for {
		ev, err := next(stream.Context())
		if err != nil {
			return err // be it io.EOF, be it what another server says of this one
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
		stream.SetHeader(metadata.Pairs("watching", "yes"))          // the headers have left
		stream.SetTrailer(metadata.Pairs("last-cursor", ev.GetId())) // adds a value
	}
}

// server names its errors, sends its headers first and its trailer once.
type server struct{ relay }

func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	ctx, last := stream.Context(), ""
	next, err := s.open(ctx, req.GetTopic())
	if err != nil {
		return name(ctx, req, err)
	}
	if err := stream.SendHeader(metadata.Pairs("watching", "yes")); err != nil {
		return err
	}
	// Deferred, so that it goes with every status, a failure's too. The ids are
	// printable ASCII: other bytes need a key that ends in -bin.
	defer func() { stream.SetTrailer(metadata.Pairs("last-cursor", last)) }()
	for {
		ev, err := next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return name(ctx, req, err)
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
		last = ev.GetId()
	}
}

// name makes a status of an error of the feed. Whose fault is it, as the client
// sees it? A real server also logs err, of which the client learns nothing.
func name(ctx context.Context, req *feedv1.WatchRequest, err error) error {
	switch {
	case errors.Is(err, errNoTopic): // the client's
		st := status.New(codes.NotFound, "no such topic")
		if detailed, err := st.WithDetails(req); err == nil {
			st = detailed // what a program reads: a text is for people
		}
		return st.Err()
	case ctx.Err() != nil: // nobody's: the client has left
		return status.FromContextError(ctx.Err()).Err()
	case status.Code(err) == codes.Unavailable: // trying again may help
		return status.Error(codes.Unavailable, "the feed cannot be reached")
	}
	return status.Error(codes.Internal, "the feed failed") // ours
}

// leave takes n events, asks for the trailer of a stream that has not ended,
// and cancels.
func leave(
	ctx context.Context, client feedv1.FeedServiceClient, topic string, n int,
) (last string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for ; n > 0 && err == nil; n-- {
		_, err = stream.Recv()
	}
	if err != nil {
		return "", err
	}
	return cursor(stream.Trailer()), nil // there is none before Recv's error
}

// watch reads a topic to its end and returns the cursor of the trailer.
func watch(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
) (last string, err error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return "", err
	}
	for err == nil {
		_, err = stream.Recv()
	}
	last = cursor(stream.Trailer()) // beside io.EOF and beside every other error
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return last, err
}

func cursor(trailer metadata.MD) string {
	if values := trailer.Get("last-cursor"); len(values) > 0 {
		return values[0]
	}
	return ""
}

// canceledByIdentity asks as one asks a context's own error.
func canceledByIdentity(err error) bool { return errors.Is(err, context.Canceled) }

// canceledByCode asks as one asks an error of gRPC.
func canceledByCode(err error) bool { return status.Code(err) == codes.Canceled }

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
	bare, endBare, err := serve(&bareServer{relay{open: open}})
	if err != nil {
		return err
	}
	defer endBare()
	named, endNamed, err := serve(&server{relay{open: open}})
	if err != nil {
		return err
	}
	defer endNamed()
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }

	say("How four topics end, as a bare error | as a status with a name:")
	for _, topic := range []string{"complete", "typo", "forbidden", "moved"} {
		_, bareErr := watch(ctx, bare, topic)
		_, namedErr := watch(ctx, named, topic)
		say("  %-9s  %s | %s", topic, text(bareErr), text(namedErr))
	}

	say("Two events and no end, and the header \"watching\":")
	patience := max(pace/5, 20*time.Millisecond)
	say("  set after the first event: %q", header(ctx, bare, "growing", patience))
	say("  sent before it:            %q", header(ctx, named, "growing", patience))

	say("Two events, and the trailer \"last-cursor\":")
	last, _ := leave(ctx, named, "growing", 2)
	say("  asked before the end:           %q", last)
	last, _ = watch(ctx, named, "forbidden")
	say("  asked after it, with its error: %q", last)
	last, _ = watch(ctx, bare, "forbidden")
	say("  set with each event:            %q", last)

	say("You cancel, and ask the error of Recv whether it was that:")
	gone, cancel := context.WithCancel(ctx)
	defer time.AfterFunc(patience, cancel).Stop()
	_, err = watch(gone, named, "growing")
	say("  errors.Is(err, context.Canceled): %t", canceledByIdentity(err))
	say("  status.Code(err) == Canceled:     %t", canceledByCode(err))
	return ctx.Err()
}

// header returns what the server says of a topic before patience ends.
func header(
	ctx context.Context, client feedv1.FeedServiceClient, topic string, patience time.Duration,
) []string {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil
	}
	md, _ := stream.Header() // waits for the headers, the end or ctx
	return md.Get("watching")
}

// text shows what crossed of an error.
func text(err error) string {
	if err == nil {
		return "OK"
	}
	st := status.Convert(err)
	line := fmt.Sprintf("%v %q", st.Code(), st.Message())
	for _, detail := range st.Details() {
		line += fmt.Sprintf(" {%v}", detail)
	}
	return line
}

// open is a feed with a topic for each end that this chapter is about.
func open(_ context.Context, topic string) (next, error) {
	if topic == "typo" {
		return nil, fmt.Errorf("lookup %s: %w", topic, errNoTopic)
	}
	sent := 0
	return func(ctx context.Context) (*feedv1.Event, error) {
		if sent < 2 && topic != "silent" {
			sent++
			return &feedv1.Event{Id: strconv.Itoa(sent), Topic: topic}, nil
		}
		switch topic {
		case "complete":
			return nil, io.EOF
		case "forbidden": // what a server behind this one says of its caller
			return nil, status.Error(codes.PermissionDenied, "relay-7 may not read")
		case "moved":
			return nil, status.Error(codes.Unavailable, "shard-9 drains")
		}
		<-ctx.Done()
		return nil, fmt.Errorf("wait for %s: %w", topic, ctx.Err())
	}, nil
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
