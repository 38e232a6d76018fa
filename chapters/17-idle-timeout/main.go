// A deadline bounds a whole stream. A stream that may live for days needs a
// bound of another kind: on how long a side waits for the next message.
//
// The program shows a topic and an upload that fall silent, clients that bound
// the silence in three ways, and handlers that do it in two.
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
	watchClient  = grpc.ServerStreamingClient[feedv1.Event]
	watchServer  = grpc.ServerStreamingServer[feedv1.Event]
	uploadServer = grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]
)

// ErrIdle says that a stream was ended because nothing came.
var ErrIdle = errors.New("silent for too long")

// A watcher hands over the events of a topic until it ends, or until none has
// come for as long as idle says.
type watcher func(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	idle time.Duration, handle func(*feedv1.Event)) error

// recvWithin is the Recv with a timeout that gRPC does not have. When the time
// is over, its own Recv waits on, and takes the next event. To call it again
// before that is to have two Recvs at once on a stream, which gRPC forbids.
func recvWithin(stream watchClient, idle time.Duration) (*feedv1.Event, error) {
	var ev *feedv1.Event
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		ev, err = stream.Recv()
	}()
	select {
	case <-done:
		return ev, err
	case <-time.After(idle):
		return nil, ErrIdle
	}
}

// watchRacing returns in time. The stream that it opened stays open, and the
// goroutine of its last recvWithin in Recv.
func watchRacing(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	idle time.Duration, handle func(*feedv1.Event)) error {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = recvWithin(stream, idle); err == nil {
			handle(ev)
		}
	}
	return notEOF(err)
}

// watchResetting ends the stream, which ends Recv. But its timer also runs
// while handle does, and what it returns looks like the caller's own cancel.
func watchResetting(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	idle time.Duration, handle func(*feedv1.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	timer := time.AfterFunc(idle, cancel)
	defer timer.Stop()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			timer.Reset(idle)
			handle(ev)
		}
	}
	return notEOF(err)
}

// watch bounds each wait, the one for the stream included, and says by ErrIdle
// that it was silence that ended the stream.
func watch(ctx context.Context, client feedv1.FeedServiceClient, topic string,
	idle time.Duration, handle func(*feedv1.Event)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil) // releases the stream on every way out
	silence := fmt.Errorf("%w: no event for %v", ErrIdle, idle)
	timer := time.AfterFunc(idle, func() { cancel(silence) })
	defer timer.Stop()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			timer.Stop() // to handle an event is not silence
			handle(ev)
			timer.Reset(idle)
		}
	}
	// A context keeps its first cause, and no other call has this value. The code
	// counts, too: EOF or Unavailable may come at the same instant.
	if status.Code(err) == codes.Canceled && context.Cause(ctx) == silence {
		return silence
	}
	return notEOF(err)
}

func notEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// server is a feed. After its events a topic ends, or is silent until its
// client leaves.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	events   int
	every    time.Duration
	ends     bool
	idle     time.Duration // for uploads
	store    func(*feedv1.Event)
	upload   func(*server, uploadServer) error
	handlers atomic.Int32 // of Watch, that run
}

func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	s.handlers.Add(1)
	defer s.handlers.Add(-1)
	for id := 1; id <= s.events; id++ {
		pause(stream.Context(), s.every)
		ev := &feedv1.Event{Id: fmt.Sprint(id), Topic: req.GetTopic()}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	if !s.ends {
		<-stream.Context().Done()
	}
	return stream.Context().Err()
}

func (s *server) UploadEvents(stream uploadServer) error { return s.upload(s, stream) }

// uploadDeriving has a context that ends in time. Recv does not know of it: it
// waits for the context of the stream, which a handler ends only by its return.
func (s *server) uploadDeriving(stream uploadServer) error {
	for n := int32(0); ; n++ {
		ctx, cancel := context.WithTimeout(stream.Context(), s.idle)
		ev, err := stream.Recv()
		late := ctx.Err()
		cancel()
		switch {
		case err == nil && late != nil:
			return status.Errorf(codes.DeadlineExceeded, "no event for %v", s.idle)
		case errors.Is(err, io.EOF):
			return stream.SendAndClose(&feedv1.UploadResult{Received: n})
		case err != nil:
			return err
		}
		s.store(ev)
	}
}

// uploadBounded leaves Recv to a goroutine, and waits for that or for the clock.
// Its return ends the Recv.
func (s *server) uploadBounded(stream uploadServer) error {
	type received struct {
		ev  *feedv1.Event
		err error
	}
	next, gone := make(chan received), make(chan struct{})
	defer close(gone)
	go func() { // cannot be joined: its Recv ends when the handler has returned
		for {
			ev, err := stream.Recv()
			select {
			case next <- received{ev, err}:
			case <-gone:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for n := int32(0); ; n++ {
		select {
		case r := <-next:
			if errors.Is(r.err, io.EOF) {
				return stream.SendAndClose(&feedv1.UploadResult{Received: n})
			}
			if r.err != nil {
				return r.err
			}
			s.store(r.ev) // the clock below begins when this is done
		case <-time.After(s.idle):
			return status.Errorf(codes.DeadlineExceeded, "no event for %v", s.idle)
		}
	}
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
	say := func(format string, args ...any) {
		if ctx.Err() == nil { // a reader who is leaving hears no more
			fmt.Fprintf(w, format+"\n", args...)
			pause(ctx, pace)
		}
	}
	idle := max(pace, 5*time.Millisecond)
	for _, topic := range []struct {
		what        string
		events      int
		every, slow time.Duration // slow: to handle event 1
	}{
		{"3 events, then silence", 3, 0, 0},
		{"8 events in 2.4 limits, and 1.5 limits to handle the first", 8, idle * 3 / 10, idle * 3 / 2},
	} {
		say("A topic with %s:", topic.what)
		for _, way := range []struct {
			name  string
			watch watcher
		}{{"watchRacing", watchRacing}, {"watchResetting", watchResetting}, {"watch", watch}} {
			s := &server{events: topic.events, every: topic.every, ends: topic.every > 0}
			client, end, err := serve(s)
			if err != nil {
				return err
			}
			handled := 0
			err = way.watch(ctx, client, "deploys", idle, func(*feedv1.Event) {
				if handled++; handled == 1 {
					pause(ctx, topic.slow)
				}
			})
			pause(ctx, 5*time.Millisecond) // a cancel travels
			say("  %-15s %d events, error: %v; handlers left: %d",
				way.name, handled, err, s.handlers.Load())
			end()
		}
	}
	say("An upload of 3 events, then silence:")
	for _, way := range []struct {
		name   string
		upload func(*server, uploadServer) error
	}{{"uploadDeriving", (*server).uploadDeriving}, {"uploadBounded", (*server).uploadBounded}} {
		s := &server{idle: idle, upload: way.upload, store: func(*feedv1.Event) {}}
		client, end, err := serve(s)
		if err != nil {
			return err
		}
		say("  %-15s %v", way.name, fallSilent(ctx, client, 2*idle))
		end()
	}
	return ctx.Err()
}

// fallSilent uploads three events, does not half-close, and returns what the
// server says to that, if it says it before patience ends.
func fallSilent(ctx context.Context, client feedv1.FeedServiceClient, patience time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(patience, cancel).Stop()
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return err
	}
	for range 3 {
		stream.Send(&feedv1.Event{}) // if it fails, RecvMsg says why
	}
	err = stream.RecvMsg(new(feedv1.UploadResult)) // CloseAndRecv would half-close
	if ctx.Err() != nil {
		return fmt.Errorf("the handler has said nothing for %v", patience)
	}
	return err
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

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
