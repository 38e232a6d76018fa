// A stream's Send is for one goroutine at a time. Two at once work in a test
// that sends less than the stream's quota, the race detector is silent, and
// one of them waits for ever when the client was slow.
//
// The program lets ten producers send on one stream while the client reads
// nothing for a moment: each for itself, in turn, and through one goroutine.
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
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// A producer makes events and hands them to send. It returns send's error.
type producer func(send func(*feedv1.Event) error) error

// A watch is how the events of several producers come onto one stream. It
// returns when all of them are done: a handler must not return before.
type watch func(stream watchServer, producers []producer) error

// sendTogether lets each producer call Send.
func sendTogether(stream watchServer, producers []producer) error {
	var all errgroup.Group
	for _, produce := range producers {
		all.Go(func() error { return produce(stream.Send) })
	}
	return all.Wait()
}

// sendInTurn does so with a lock around Send, around each and every one.
func sendInTurn(stream watchServer, producers []producer) error {
	var turn sync.Mutex
	send := func(ev *feedv1.Event) error {
		turn.Lock()
		defer turn.Unlock()
		return stream.Send(ev)
	}
	var all errgroup.Group
	for _, produce := range producers {
		all.Go(func() error { return produce(send) })
	}
	return all.Wait()
}

// sendThroughOne lets one goroutine call Send. The producers hand over to it,
// and can give up: a lock that is taken has no ctx.Done().
func sendThroughOne(stream watchServer, producers []producer) error {
	sender, ctx := errgroup.WithContext(stream.Context())
	events := make(chan *feedv1.Event)
	sender.Go(func() error {
		for ev := range events {
			if err := stream.Send(ev); err != nil {
				return err
			}
		}
		return nil
	})
	hand := func(ev *feedv1.Event) error {
		select {
		case events <- ev:
			return nil
		case <-ctx.Done(): // Send has failed, or the stream has ended
			return context.Cause(ctx)
		}
	}
	var all errgroup.Group
	for _, produce := range producers {
		all.Go(func() error { return produce(hand) })
	}
	err := all.Wait()
	close(events) // nobody hands over any more
	if failed := sender.Wait(); failed != nil {
		return failed
	}
	return err
}

// server is a feed whose Watch fills the stream, so that the next Send blocks,
// and then starts its producers.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	watch     watch
	fill      []*feedv1.Event
	producers []producer
}

func (s *server) Watch(_ *feedv1.WatchRequest, stream watchServer) error {
	for _, ev := range s.fill {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return s.watch(stream, s.producers)
}

// A client that reads nothing has room for 65,535 bytes, and Send for 64 KiB
// more: 128 events of 1 KiB (chapter 19).
const window, full = 65_535, 128

// kib is n events of 1 KiB.
func kib(n int) []*feedv1.Event {
	events := make([]*feedv1.Event, n)
	for i := range events {
		events[i] = &feedv1.Event{Body: strings.Repeat("x", 1024)}
	}
	return events
}

// sayOne hands one tiny event to send.
func sayOne(send func(*feedv1.Event) error) error {
	return send(&feedv1.Event{Body: "!"})
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
	var ten []producer
	for range 10 {
		ten = append(ten, sayOne)
	}
	say("10 producers have one event each, the client reads late, and then everything:")
	for _, way := range []struct {
		name  string
		watch watch
	}{
		{"sendTogether", sendTogether},
		{"sendInTurn", sendInTurn},
		{"sendThroughOne", sendThroughOne},
	} {
		n, err := readLate(ctx, &server{watch: way.watch, fill: kib(full), producers: ten}, pace)
		ending := fmt.Sprint(err)
		switch {
		case errors.Is(err, io.EOF):
			ending = "the handler returned"
		case errors.Is(err, errSilence):
			ending = fmt.Sprintf("silence: %d of 10 producers wait in Send", full+10-n)
		}
		say("  %-14s  %d of %d events, then %s", way.name, n, full+10, ending)
	}
	return ctx.Err()
}

var errSilence = errors.New("nothing more came")

// readLate opens a stream, reads nothing until all producers have called Send,
// and then reads until the stream ends or is silent. It returns how many
// events there were, and how the stream ended.
func readLate(ctx context.Context, svc *server, pace time.Duration) (int, error) {
	client, end, err := serve(svc)
	if err != nil {
		return 0, err
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends a Send that waits, also one that nobody wakes
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	if err != nil {
		return 0, err
	}
	late, silence := 20*time.Millisecond+pace/10, 30*time.Millisecond+pace/4
	pause(ctx, late)
	silent := time.AfterFunc(silence, cancel)
	for n := 0; ; n++ {
		_, err := stream.Recv()
		if err != nil && !silent.Stop() {
			return n, errSilence // or an interrupt at that moment
		}
		if err != nil {
			return n, err
		}
		silent.Reset(silence)
	}
}

// serve starts a server on loopback and connects to it. The returned function
// ends both and waits for the handlers.
func serve(svc feedv1.FeedServiceServer) (feedv1.FeedServiceClient, func(), error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped
	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(window))
	if err != nil {
		srv.Stop()
		return nil, nil, fmt.Errorf("client: %w", err)
	}
	return feedv1.NewFeedServiceClient(conn), func() {
		conn.Close()
		srv.Stop()
	}, nil
}

// say prints a line and gives the reader time for it.
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
