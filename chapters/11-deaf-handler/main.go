// A handler runs on a goroutine that gRPC starts and cannot end. When the
// client is gone gRPC cancels the stream's context, and that is all: a handler
// that waits for its source alone stays until the source speaks.
//
// In the program clients watch a silent topic and leave, and what they leave
// behind is counted: with two handlers that do not listen, and three that do.
package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// A handler is one way to write Watch.
type handler func(*server, *feedv1.WatchRequest, watchServer) error

// server is a feed whose Watch is one of the handlers below.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	broker  *broker
	handle  handler
	running atomic.Int32 // handlers that have not returned
}

// Watch counts, tells the client by its headers that the handler runs, and
// leaves the rest to the handler.
func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	s.running.Add(1)
	defer s.running.Add(-1)
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	return s.handle(s, req, stream)
}

// watchIgnoringContext waits for its source alone. That the client is gone it
// learns from Send, so at the next event, if there is one.
func (s *server) watchIgnoringContext(req *feedv1.WatchRequest, stream watchServer) error {
	sub := s.broker.subscribe(req.GetTopic())
	defer sub.close()
	for ev := range sub.events {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return nil
}

// watchAskingBetween asks its context before each wait. What lasts is the wait.
func (s *server) watchAskingBetween(req *feedv1.WatchRequest, stream watchServer) error {
	sub := s.broker.subscribe(req.GetTopic())
	defer sub.close()
	for stream.Context().Err() == nil {
		ev, ok := <-sub.events // nothing that happens to the context ends this
		if !ok {
			return nil
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return stream.Context().Err()
}

// watch waits for its source and for its context at once.
func (s *server) watch(req *feedv1.WatchRequest, stream watchServer) error {
	sub := s.broker.subscribe(req.GetTopic())
	defer sub.close()
	for {
		select {
		case ev, ok := <-sub.events:
			if !ok {
				return nil
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// watchBoth has two sources. One select waits for all there is to wait for. The
// first topic that ends ends it.
func (s *server) watchBoth(req *feedv1.WatchRequest, stream watchServer) error {
	own, all := s.broker.subscribe(req.GetTopic()), s.broker.subscribe("all")
	defer own.close()
	defer all.close()
	for {
		var ev *feedv1.Event
		var ok bool
		select {
		case ev, ok = <-own.events:
		case ev, ok = <-all.events:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if !ok {
			return nil
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
}

// watchNext has a source without a channel: next returns an event or, when the
// subscription is closed, false. So the end of the context has to close it.
func (s *server) watchNext(req *feedv1.WatchRequest, stream watchServer) error {
	sub := s.broker.subscribe(req.GetTopic())
	stop := context.AfterFunc(stream.Context(), sub.close)
	defer func() {
		if stop() { // AfterFunc has not closed it, and never will
			sub.close()
		}
	}()
	for {
		ev, ok := sub.next()
		if !ok {
			return stream.Context().Err() // nil if the topic has ended
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
}

// A broker hands each event to the subscriptions of its topic.
type broker struct {
	mu    sync.Mutex
	subs  map[*subscription]bool
	ended bool
}

// A subscription takes up a place at the broker until it is closed.
type subscription struct {
	topic  string
	events chan *feedv1.Event // closed by the broker when the topic has ended
	close  func()             // gives the place back; to be called once
	closed chan struct{}
}

func (b *broker) subscribe(topic string) *subscription {
	sub := &subscription{topic: topic, events: make(chan *feedv1.Event), closed: make(chan struct{})}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		close(sub.events)
	}
	b.subs[sub] = true
	sub.close = func() {
		close(sub.closed)
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.subs, sub)
	}
	return sub
}

// next waits for an event, for the end of the topic or for close.
func (s *subscription) next() (ev *feedv1.Event, ok bool) {
	select {
	case ev, ok = <-s.events:
	case <-s.closed:
	}
	return ev, ok
}

// publish returns when each subscription has taken the event or was closed. So
// the slowest client sets the pace of its topic (chapter 23).
func (b *broker) publish(ev *feedv1.Event) {
	b.mu.Lock()
	subs := maps.Clone(b.subs)
	b.mu.Unlock()
	for sub := range subs {
		if sub.topic != ev.GetTopic() {
			continue
		}
		select {
		case sub.events <- ev:
		case <-sub.closed:
		}
	}
}

// end ends all topics. It must not be called while publish runs.
func (b *broker) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	for sub := range b.subs {
		close(sub.events)
	}
}

// places counts the subscriptions that are not closed.
func (b *broker) places() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.subs)
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
	const clients = 20
	while := max(pace/5, 20*time.Millisecond)
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	say("%d clients watch a silent topic and leave. What is left of them:", clients)
	for _, way := range []struct {
		name   string
		handle handler
	}{
		{"watch", (*server).watch},
		{"watchBoth", (*server).watchBoth},
		{"watchNext", (*server).watchNext},
		{"watchAskingBetween", (*server).watchAskingBetween},
		{"watchIgnoringContext", (*server).watchIgnoringContext},
	} {
		if err := come(ctx, way.name, way.handle, clients, while, say); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// come lets n clients come and go. Handlers that stay it tries to end: each
// time they have a while to do so.
func come(
	ctx context.Context, name string, handle handler, n int, while time.Duration,
	say func(string, ...any),
) error {
	s := &server{broker: &broker{subs: map[*subscription]bool{}}, handle: handle}
	conn, srv, err := serve(s)
	if err != nil {
		return err
	}
	defer srv.GracefulStop() // waits for the handlers,
	defer s.broker.end()     // which end with their topics,
	defer conn.Close()       // and for the connections
	if err := visit(ctx, feedv1.NewFeedServiceClient(conn), n); err != nil {
		return err
	}
	left := func(what string) {
		s.settle(ctx, while)
		say("  %-36s %2d handlers, %2d subscriptions", what+":", s.running.Load(), s.broker.places())
	}
	left(name)
	if s.running.Load() == 0 || name != "watchIgnoringContext" {
		return ctx.Err()
	}
	conn.Close()
	left("  the connection is closed")
	srv.Stop()
	left("  srv.Stop has returned")
	s.broker.publish(&feedv1.Event{Id: "1", Topic: "silent"})
	left("  the topic has an event")
	return ctx.Err()
}

// visit opens n streams, waits until their handlers run, and cancels them.
func visit(ctx context.Context, client feedv1.FeedServiceClient, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range n {
		stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "silent"})
		if err != nil {
			return err
		}
		if _, err := stream.Header(); err != nil {
			return err
		}
	}
	return nil
}

// settle gives handlers a while to return.
func (s *server) settle(ctx context.Context, while time.Duration) {
	for end := time.Now().Add(while); s.running.Load() > 0 && time.Now().Before(end); {
		pause(ctx, time.Millisecond)
	}
}

// serve starts a server on loopback and connects to it.
func serve(svc feedv1.FeedServiceServer) (*grpc.ClientConn, *grpc.Server, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer()
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		srv.Stop()
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	return conn, srv, nil
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
