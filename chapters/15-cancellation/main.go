// A relay is a server to its client and a client to its upstream. A cancel that
// reaches the one half does not reach the other by itself: it travels in the
// context, as far as each hop hands the context on.
//
// In the program clients watch a feed through a relay and leave, once through a
// handler that keeps the cancel to itself and once through one that hands it
// on. Then a deadline travels the chain, and statuses come back through it.
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

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// A handler is one way to write the relay's Watch.
type handler func(*relay, *feedv1.WatchRequest, watchServer) error

// relay passes on what its upstream sends: the origin, or another relay.
type relay struct {
	feedv1.UnimplementedFeedServiceServer
	upstream feedv1.FeedServiceClient
	handle   handler
	patience time.Duration // for the audit
}

func (r *relay) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	return r.handle(r, req, stream)
}

// watchDetached opens its upstream on a context that no client ends, audits on
// one that the client has ended, and returns what the upstream says.
func (r *relay) watchDetached(req *feedv1.WatchRequest, stream watchServer) error {
	sent := 0
	defer func() { r.audit(stream.Context(), req.GetTopic(), sent) }()
	upstream, err := r.upstream.Watch(context.Background(), req)
	if err != nil {
		return err
	}
	for ; ; sent++ {
		ev, err := upstream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
}

// watch hands its client's context on to the upstream, with the cancel and the
// deadline in it.
func (r *relay) watch(req *feedv1.WatchRequest, stream watchServer) error {
	ctx, sent := stream.Context(), 0
	// The audit is for a client that may have left. It keeps the values of the
	// context, and has a bound in place of its cancel and its deadline.
	defer func() {
		last, release := context.WithTimeout(context.WithoutCancel(ctx), r.patience)
		defer release()
		r.audit(last, req.GetTopic(), sent)
	}()
	upstream, err := r.upstream.Watch(ctx, req)
	if err != nil {
		return translate(ctx, err)
	}
	for ; ; sent++ {
		ev, err := upstream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return translate(ctx, err)
		}
		if err := stream.Send(ev); err != nil {
			return err // it has ended the stream, and its context
		}
	}
}

// audit is the last work for a stream, and a call like any other. A real relay
// also logs its error.
func (r *relay) audit(ctx context.Context, topic string, sent int) error {
	_, err := r.upstream.Publish(ctx, &feedv1.PublishRequest{
		Topic: "audit", Body: topic + " " + strconv.Itoa(sent),
	})
	return err
}

// translate says what an error of the upstream means to the client of ctx.
func translate(ctx context.Context, err error) error {
	deadline, ok := ctx.Deadline()
	switch {
	case ok && !time.Now().Before(deadline): // the timer that ends ctx may be late
		return status.FromContextError(context.DeadlineExceeded).Err()
	case ctx.Err() != nil: // the client has left, and nobody has failed
		return status.FromContextError(ctx.Err()).Err()
	case status.Code(err) == codes.NotFound: // as true here as there
		return status.Error(codes.NotFound, "no such topic")
	}
	// What else an upstream says, it says of this relay.
	return status.Error(codes.Unavailable, "the feed is interrupted")
}

// origin is where the events come from, one each interval, for ever.
type origin struct {
	feedv1.UnimplementedFeedServiceServer
	every   time.Duration
	running atomic.Int32       // handlers
	left    chan time.Duration // what the deadline of each Watch leaves; 0 for none
	audits  chan string        // both have room for as many as this program makes
}

func newOrigin(every time.Duration) *origin {
	return &origin{every: every, left: make(chan time.Duration, 9), audits: make(chan string, 9)}
}

func (o *origin) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	o.running.Add(1)
	defer o.running.Add(-1)
	switch req.GetTopic() {
	case "typo":
		return status.Error(codes.NotFound, "no such topic")
	case "forbidden":
		return status.Error(codes.PermissionDenied, "relay-7 may not read")
	case "withdrawn":
		return status.Error(codes.Canceled, "an operator ended this stream")
	}
	var left time.Duration
	if deadline, ok := stream.Context().Deadline(); ok {
		left = time.Until(deadline)
	}
	o.left <- left
	for id := 1; ; id++ {
		ev := &feedv1.Event{Id: strconv.Itoa(id), Topic: req.GetTopic()}
		if err := stream.Send(ev); err != nil {
			return err
		}
		select {
		case <-time.After(o.every):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// Publish takes an audit.
func (o *origin) Publish(
	_ context.Context, req *feedv1.PublishRequest,
) (*feedv1.PublishResponse, error) {
	o.audits <- req.GetBody()
	return &feedv1.PublishResponse{}, nil
}

// take reads n events and leaves.
func take(ctx context.Context, client feedv1.FeedServiceClient, topic string, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for ; n > 0 && err == nil; n-- {
		_, err = stream.Recv()
	}
	return err
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
	while := max(pace/5, 20*time.Millisecond)
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	for _, way := range []struct {
		name   string
		handle handler
	}{{"watchDetached", (*relay).watchDetached}, {"watch", (*relay).watch}} {
		say("%s: a client takes three events through the relay and leaves.", way.name)
		if err := tell(ctx, way.handle, while, say); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// tell lets clients watch an origin through a relay with one of the handlers.
// What they leave behind has a while to end.
func tell(
	ctx context.Context, handle handler, while time.Duration, say func(string, ...any),
) error {
	o := newOrigin(time.Millisecond)
	toOrigin, endOrigin, err := serve(o)
	if err != nil {
		return err
	}
	defer endOrigin()
	client, endRelay, err := serve(&relay{upstream: toOrigin, handle: handle, patience: time.Second})
	if err != nil {
		return err
	}
	defer endRelay()

	if err := take(ctx, client, "alerts", 3); err != nil {
		return err
	}
	pause(ctx, while)
	say("  handlers at the origin: %d, audits: %d", o.running.Load(), len(o.audits))

	<-o.left
	limit, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := take(limit, client, "alerts", 1); err != nil {
		return err
	}
	left := "no deadline"
	if d := <-o.left; d > 0 {
		left = d.Round(100 * time.Millisecond).String()
	}
	say("  the client has 1m0s, the origin %s", left)
	for _, topic := range []string{"typo", "forbidden", "withdrawn"} {
		st := status.Convert(take(ctx, client, topic, 1))
		say("  %-9s  the client reads %v: %s", topic, st.Code(), st.Message())
	}
	return ctx.Err()
}

// serve starts a server on loopback and connects to it.
func serve(svc feedv1.FeedServiceServer) (feedv1.FeedServiceClient, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true)) // and so for their audits
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		srv.Stop()
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	return feedv1.NewFeedServiceClient(conn), func() { conn.Close(); srv.Stop() }, nil
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
