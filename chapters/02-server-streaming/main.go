// Server streaming: one request, any number of events, one status.
//
// The program watches topics that end well, that fail and that stay silent,
// through a handler that tells these apart and through three that do not.
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
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// watchServer is the server's end of a Watch, which older code calls
// feedv1.FeedService_WatchServer: both name one type.
type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// A subscription is one watcher's place at a topic.
type subscription struct {
	// events delivers the topic's events in order. The broker closes the
	// channel when the topic has ended, and only then: close does not.
	events <-chan *feedv1.Event

	// err says, once events is closed, how the topic ended: nil if it is
	// complete, otherwise a gRPC status that is meant for the client.
	err error

	// close gives the place back. More than one call does no harm.
	close func()
}

// server streams what its source delivers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	subscribe func(topic string) *subscription
}

// Watch has three ways to end, and each has its line: the topic ended, the
// client cannot be reached, the client left while there was nothing to send.
func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	sub := s.subscribe(req.GetTopic())
	defer sub.close()
	for {
		select {
		case ev, ok := <-sub.events:
			if !ok {
				return sub.err // nil if the topic is complete
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// zeroServer takes whatever the channel yields for an event.
type zeroServer struct{ server }

// Watch never learns that the topic has ended: a closed channel is always
// ready, and what it yields is nil, which Send sends as an empty message.
func (s *zeroServer) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	sub := s.subscribe(req.GetTopic())
	defer sub.close()
	for {
		select {
		case ev := <-sub.events:
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// deafServer waits for its source alone.
type deafServer struct{ server }

// Watch learns that its client is gone when it sends the next event. On a
// silent topic there is none.
func (s *deafServer) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	sub := s.subscribe(req.GetTopic())
	defer sub.close()
	for ev := range sub.events {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return sub.err
}

// eofServer ends its stream as an io.Reader would.
type eofServer struct{ server }

// Watch makes a failure of a good end: to gRPC io.EOF is an error like any
// other. The client's io.EOF comes from nil.
func (s *eofServer) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	if err := s.server.Watch(req, stream); err != nil {
		return err
	}
	return io.EOF
}

// collect returns the events of a topic once it has ended, and what came
// before an error beside the error.
func collect(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
) ([]*feedv1.Event, error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	var events []*feedv1.Event
	for { // until Recv returns an error: then the stream is released
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return events, nil // the handler returned nil
		}
		if err != nil {
			return events, err // it did not: there may be more events
		}
		events = append(events, ev)
	}
}

// collectIgnoringErrors takes every error for the end.
func collectIgnoringErrors(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
) []*feedv1.Event {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil
	}
	var events []*feedv1.Event
	for {
		ev, err := stream.Recv()
		if err != nil {
			return events
		}
		events = append(events, ev)
	}
}

// first returns at most n events. It leaves before the end, so it cancels: a
// stream that is neither read to its end nor cancelled stays (chapter 10).
func first(
	ctx context.Context, client feedv1.FeedServiceClient, topic string, n int,
) ([]*feedv1.Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err != nil {
		return nil, err
	}
	var events []*feedv1.Event
	for len(events) < n {
		ev, err := stream.Recv()
		if err != nil {
			return events, err
		}
		events = append(events, ev)
	}
	return events, nil
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
	src := &source{every: pace / 5, over: make(chan struct{})}
	base := server{subscribe: src.subscribe}
	var clients []feedv1.FeedServiceClient
	for _, svc := range []feedv1.FeedServiceServer{
		&base, &eofServer{base}, &zeroServer{base}, &deafServer{base},
	} {
		client, end, err := serve(svc)
		if err != nil {
			return err
		}
		defer end()
		clients = append(clients, client)
	}
	right, eof, zero, deaf := clients[0], clients[1], clients[2], clients[3]
	defer close(src.over) // runs before each end, which waits for the deaf handler
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	report := func(what string, events []*feedv1.Event, err error) {
		say("  %-36s %s", what+":", inHand(events, err))
	}

	say("A topic of three events:")
	events, err := collect(ctx, right, "deploys")
	report("the handler returns nil", events, err)
	events, err = collect(ctx, eof, "deploys")
	report("the handler returns io.EOF", events, err)
	events, err = first(ctx, zero, "deploys", 1003) // then you leave
	report("the handler reads a closed channel", events, err)

	say("A topic that fails after two events:")
	events, err = collect(ctx, right, "broken")
	report("collect", events, err)
	events = collectIgnoringErrors(ctx, right, "broken")
	report("collectIgnoringErrors", events, nil)

	say("A silent topic, and a client that leaves after 20ms:")
	for _, h := range []struct {
		name   string
		client feedv1.FeedServiceClient
	}{{"a handler that listens to both", right}, {"a deaf handler", deaf}} {
		impatient, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		collect(impatient, h.client, "silent")
		cancel()
		pause(ctx, max(pace/5, 20*time.Millisecond)) // the handler ends
		say("  %-36s handlers that still run: %d", h.name+":", src.places.Load())
	}
	return ctx.Err()
}

// inHand says what a client has at the end.
func inHand(events []*feedv1.Event, err error) string {
	text := fmt.Sprintf("%d events, ", len(events))
	if err != nil {
		text += fmt.Sprintf("code %v, %q", status.Code(err), status.Convert(err).Message())
	} else {
		text += "no error"
	}
	if n := empty(events); n > 0 {
		text += fmt.Sprintf(", and %d of them are empty", n)
	}
	return text
}

// empty counts events without an id. No broker sent them.
func empty(events []*feedv1.Event) (n int) {
	for _, ev := range events {
		if ev.GetId() == "" {
			n++
		}
	}
	return n
}

// source stands for a broker. It plays each topic to each watcher anew.
type source struct {
	every  time.Duration // between two events
	over   chan struct{} // closed: ends all topics
	places atomic.Int32  // taken and not given back
}

func (s *source) subscribe(topic string) *subscription {
	s.places.Add(1)
	events, left := make(chan *feedv1.Event), make(chan struct{})
	sub := &subscription{events: events}
	var once sync.Once
	sub.close = func() { once.Do(func() { s.places.Add(-1); close(left) }) }
	go func() { // the only sender, so the one that may close events
		bodies, err := script(topic)
		for i, body := range bodies {
			select {
			case <-time.After(s.every):
			case <-left:
				return
			}
			ev := &feedv1.Event{Id: strconv.Itoa(i + 1), Topic: topic, Body: body}
			select {
			case events <- ev:
			case <-left:
				return
			}
		}
		if topic == "silent" {
			select {
			case <-s.over:
			case <-left:
				return
			}
		}
		sub.err = err
		close(events)
	}()
	return sub
}

// script says what happens in a topic and how it ends.
func script(topic string) (bodies []string, err error) {
	switch topic {
	case "deploys":
		return []string{"started", "halfway", "done"}, nil
	case "broken":
		return []string{"started", "halfway"}, status.Error(codes.Unavailable, "the topic moved")
	case "refused":
		return nil, status.Error(codes.PermissionDenied, "not yours to watch")
	default:
		return nil, nil
	}
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

// pause takes d, and less if ctx ends first.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
