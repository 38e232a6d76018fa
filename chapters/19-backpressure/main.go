// Send blocks when the peer does not read, and so the source is not read
// either. That is backpressure, and it works in both directions.
//
// The program forwards a topic to a peer that reads nothing: from a source
// straight to Send, through a channel, and through a queue without a bound.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type (
	watchServer  = grpc.ServerStreamingServer[feedv1.Event]
	uploadServer = grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]
)

// A source returns the next event, and io.EOF after the last. It can wait:
// what nobody asks for stays where it is, in a file, a table, a log. It returns
// when ctx ends, and it is for one stream: no two goroutines may ask at once.
type source func(ctx context.Context) (*feedv1.Event, error)

// A forwarder hands the events of a source to the Send of a stream, on either
// side. It returns nil after the last event.
type forwarder func(ctx context.Context, next source, send func(*feedv1.Event) error) error

// forward asks for an event when Send has taken the one before it. When Send waits
// for the peer, the source waits for Send.
func forward(ctx context.Context, next source, send func(*feedv1.Event) error) error {
	for {
		ev, err := next(ctx)
		if err != nil {
			return ending(err)
		}
		if err := send(ev); err != nil { // blocks while the peer does not read
			return err
		}
	}
}

// ending is what a forwarder returns when its source has ended so.
func ending(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// item is what a source returned.
type item struct {
	ev  *feedv1.Event
	err error
}

// forwardThroughQueue lets a goroutine read the source, so that a slow peer
// holds up nobody. Nothing makes that goroutine wait.
func forwardThroughQueue(
	ctx context.Context, next source, send func(*feedv1.Event) error,
) error {
	ctx, cancel := context.WithCancel(ctx)
	var (
		reader sync.WaitGroup
		mu     sync.Mutex
		queue  []item
		more   = make(chan struct{}, 1) // queue has grown
	)
	defer reader.Wait()
	defer cancel()
	reader.Go(func() {
		for {
			ev, err := next(ctx)
			mu.Lock()
			queue = append(queue, item{ev, err}) // never blocks
			mu.Unlock()
			select {
			case more <- struct{}{}:
			default:
			}
			if err != nil {
				return
			}
		}
	})
	for {
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
		mu.Lock()
		batch := queue
		queue = nil
		mu.Unlock()
		for _, it := range batch {
			if it.err != nil {
				return ending(it.err)
			}
			if err := send(it.ev); err != nil {
				return err
			}
		}
	}
}

// throughChannel makes a forwarder with a channel of so many slots between
// source and Send. When it is full the source waits again: the channel adds
// its slots and one in hand to what Send takes, and a goroutine to be ended.
func throughChannel(slots int) forwarder {
	return func(ctx context.Context, next source, send func(*feedv1.Event) error) error {
		ctx, cancel := context.WithCancel(ctx)
		var reader sync.WaitGroup
		defer reader.Wait()
		defer cancel()
		items := make(chan item, slots)
		reader.Go(func() {
			for {
				ev, err := next(ctx)
				select {
				case items <- item{ev, err}:
				case <-ctx.Done(): // Send has failed, or the stream has ended
					return
				}
				if err != nil {
					return
				}
			}
		})
		taken := func(ctx context.Context) (*feedv1.Event, error) {
			select {
			case it := <-items:
				return it.ev, it.err
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return forward(ctx, taken, send)
	}
}

// server streams a topic down, to one Watch, and takes events up.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	forward forwarder
	topic   source
	upload  func(uploadServer) error
}

// Watch runs at the pace of its client.
func (s *server) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	return s.forward(stream.Context(), s.topic, stream.Send)
}

func (s *server) UploadEvents(stream uploadServer) error { return s.upload(stream) }

// upload runs at the pace of its server, and returns the server's count.
func upload(
	ctx context.Context, client feedv1.FeedServiceClient, forward forwarder, next source,
) (int32, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, err
	}
	err = forward(ctx, next, stream.Send)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	result, err := stream.CloseAndRecv() // if Send said io.EOF, this says why
	return result.GetReceived(), err
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	for _, side := range []struct {
		who  string
		open func(context.Context, feedv1.FeedServiceClient, forwarder, source) error
	}{
		{"client reads nothing, and the server", openWatch},
		{"server reads nothing, and the client", openUpload},
	} {
		say("a %s has taken from a topic of 10000 events:", side.who)
		for _, way := range []struct {
			name    string
			forward forwarder
		}{
			{"straight to Send", forward},
			{"through a channel of 1000", throughChannel(1000)},
			{"through a queue without a bound", forwardThroughQueue},
		} {
			taken, err := stall(ctx, side.open, way.forward)
			if err != nil {
				return err
			}
			say("  %-30s %5d", way.name, taken)
		}
	}
	return ctx.Err()
}

// stall opens a stream whose receiver reads nothing, and returns how many
// events were taken from the source when nothing moves any more.
func stall(
	ctx context.Context,
	open func(context.Context, feedv1.FeedServiceClient, forwarder, source) error,
	forward forwarder,
) (int64, error) {
	var taken atomic.Int64
	topic := counted(topic(10_000), &taken)
	client, end, err := serve(&server{forward: forward, topic: topic, upload: readNothing})
	if err != nil {
		return 0, err
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends a Send that blocks, on either side
	done := make(chan error, 1)
	go func() { done <- open(ctx, client, forward, topic) }()
	for last := int64(0); ; {
		select {
		case <-time.After(15 * time.Millisecond):
		case err := <-done: // no stall: the RPC failed, or ctx has ended
			return 0, err
		}
		now := taken.Load()
		if now > 0 && now == last {
			cancel()
			<-done
			return now, nil
		}
		last = now
	}
}

// openWatch opens a stream and never calls Recv.
func openWatch(
	ctx context.Context, client feedv1.FeedServiceClient, _ forwarder, _ source,
) error {
	if _, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func openUpload(
	ctx context.Context, client feedv1.FeedServiceClient, forward forwarder, next source,
) error {
	_, err := upload(ctx, client, forward, next)
	return err
}

func readNothing(stream uploadServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// topic is a source of n events of 1 KiB, and then silent.
func topic(n int) source {
	body := strings.Repeat("x", 1024)
	return func(ctx context.Context) (*feedv1.Event, error) {
		if n == 0 {
			<-ctx.Done()
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		n--
		return &feedv1.Event{Body: body}, nil
	}
}

// counted counts what is taken from a source.
func counted(next source, taken *atomic.Int64) source {
	return func(ctx context.Context) (*feedv1.Event, error) {
		ev, err := next(ctx)
		if err == nil {
			taken.Add(1)
		}
		return ev, err
	}
}

// serve starts a server on loopback and connects to it. The returned function
// ends both and waits for the handlers. The windows are fixed, so that the
// numbers are the same each time; left alone, an estimator moves them.
func serve(svc feedv1.FeedServiceServer) (feedv1.FeedServiceClient, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true),
		grpc.StaticStreamWindowSize(65_535), grpc.StaticConnWindowSize(65_535))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(65_535), grpc.WithStaticConnWindowSize(65_535))
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
