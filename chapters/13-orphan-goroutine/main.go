// A handler may start goroutines that help it. Its return ends the stream. It
// does not end them, and it does not wait for them.
//
// The program serves a topic of three events with four handlers. Two leave a
// helper behind: one that sends heartbeats, one that sends from a queue. The
// third needs no helper, and the fourth waits for its own.
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

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// server is a feed whose Watch is one of the handlers below.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(*server, watchServer) error

	// events is what the topic delivers to its one watcher, closed at its end.
	events <-chan *feedv1.Event
	// beat is how long the topic may be silent before a heartbeat is sent, and
	// tick is time.Tick: a field, so that this program can end what it leaks.
	beat time.Duration
	tick func(time.Duration) <-chan time.Time
	// render is what a helper does to an event before it sends it. It takes
	// a while.
	render func(context.Context, *feedv1.Event) error
}

func (s *server) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	return s.watch(s, stream)
}

// watchLeavingAHeart starts a goroutine that sends heartbeats. Nothing ends
// it: not the handler's return, and not the errors of Send.
func (s *server) watchLeavingAHeart(stream watchServer) error {
	go func() {
		for range s.tick(s.beat) {
			stream.Send(heartbeat()) // also while the loop below sends
		}
	}()
	for {
		select {
		case ev, ok := <-s.events:
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

// watchLeavingAQueue hands events to a goroutine that renders and sends them.
// It returns when the queue has taken the last one, not when that is sent.
func (s *server) watchLeavingAQueue(stream watchServer) error {
	queue := make(chan *feedv1.Event, 16)
	defer close(queue) // stops the helper, and waits for nothing
	go func() {
		for ev := range queue {
			s.render(stream.Context(), ev)
			stream.Send(ev) // fails for all that is left, and nobody hears it
		}
	}()
	for {
		select {
		case ev, ok := <-s.events:
			if !ok {
				return nil
			}
			queue <- ev
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// watchAlone sends events and heartbeats from one loop: no helper, nothing to
// stop, nothing to wait for, and one sender.
func (s *server) watchAlone(stream watchServer) error {
	silence := time.NewTimer(s.beat)
	defer silence.Stop()
	for {
		next := heartbeat()
		select {
		case ev, ok := <-s.events:
			if !ok {
				return nil
			}
			next = ev
		case <-silence.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
		if err := stream.Send(next); err != nil {
			return err
		}
		silence.Reset(s.beat) // an event puts the heartbeat off
	}
}

// watchJoined hands events to a helper and returns when the helper has.
func (s *server) watchJoined(stream watchServer) error {
	queue := make(chan *feedv1.Event, 16)
	both, ctx := errgroup.WithContext(stream.Context())
	both.Go(func() error { // the helper, and the only sender
		for ev := range queue {
			if err := s.render(ctx, ev); err != nil {
				return err
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
		}
		return nil
	})
	both.Go(func() error {
		defer close(queue) // the helper sends what is left, and ends
		for {
			select {
			case ev, ok := <-s.events:
				if !ok {
					return nil
				}
				select {
				case queue <- ev:
				case <-ctx.Done(): // the helper has failed, or the client left
					return ctx.Err()
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	return both.Wait() // nothing outlives the handler, and no error is lost
}

func heartbeat() *feedv1.Event { return &feedv1.Event{Body: "heartbeat"} }

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
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	over, end := context.WithCancel(ctx)
	defer end()
	short := max(pace/5, 5*time.Millisecond)
	for _, handler := range []struct {
		what  string
		watch func(*server, watchServer) error
	}{
		{"A helper that beats, and nothing that ends it:", (*server).watchLeavingAHeart},
		{"A helper that sends from a queue, and nobody who waits:", (*server).watchLeavingAQueue},
		{"The same, joined:", (*server).watchJoined},
		{"One loop and no helper:", (*server).watchAlone},
	} {
		say(handler.what)
		s := &server{
			events: topic(3),
			beat:   short,
			tick:   func(d time.Duration) <-chan time.Time { return ticks(over, d) },
			render: func(ctx context.Context, _ *feedv1.Event) error { return pause(ctx, short) },
		}
		if err := s.show(ctx, handler.watch, say); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// show lets a client collect from the handler and says what became of it.
func (s *server) show(
	ctx context.Context, watch func(*server, watchServer) error, say func(string, ...any),
) error {
	late := &lateSends{}
	returned := make(chan error, 1)
	s.watch = func(s *server, stream watchServer) error {
		err := watch(s, lateServer{stream, late})
		late.returned.Store(true)
		returned <- err
		return err
	}
	client, end, err := serve(s)
	if err != nil {
		return err
	}
	defer end()
	ids, err := collect(ctx, client)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	say("  the handler returned %v; the client has %d of 3 events, code %v",
		<-returned, len(ids), status.Code(err))
	pause(ctx, 4*s.beat)
	say("  since then %d Sends have failed", late.failed.Load())
	return ctx.Err()
}

// lateSends counts the Sends that fail after the handler's return.
type lateSends struct {
	returned atomic.Bool
	failed   atomic.Int32
}

type lateServer struct {
	watchServer
	late *lateSends
}

func (s lateServer) Send(ev *feedv1.Event) error {
	err := s.watchServer.Send(ev)
	if err != nil && s.late.returned.Load() {
		s.late.failed.Add(1)
	}
	return err
}

// ticks is time.Tick with an end.
func ticks(ctx context.Context, d time.Duration) <-chan time.Time {
	c := make(chan time.Time)
	go func() {
		defer close(c)
		for pause(ctx, d) == nil {
			select {
			case c <- time.Now():
			case <-ctx.Done():
			}
		}
	}()
	return c
}

// topic is a topic with n events that has ended.
func topic(n int) <-chan *feedv1.Event {
	events := make(chan *feedv1.Event, n)
	for i := range n {
		events <- &feedv1.Event{Id: fmt.Sprint(i + 1), Topic: "alerts"}
	}
	close(events)
	return events
}

// collect returns the ids of all events, and how the stream ended: nil is OK.
func collect(ctx context.Context, client feedv1.FeedServiceClient) (ids []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		return nil, err
	}
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ids, nil
		}
		if err != nil {
			return ids, err
		}
		ids = append(ids, ev.GetId())
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

// pause takes d. If ctx ends first it returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
