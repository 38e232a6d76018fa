// Send returns when the message is queued. That it has arrived, and that it is
// stored, only the server can tell.
//
// The program stores events with a client that counts its Sends and with one
// that counts the server's acks; then the connection breaks in the middle.
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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

var errUnacked = errors.New("the stream ended with OK before all events had their acks")

type ingestServer = grpc.BidiStreamingServer[feedv1.Event, feedv1.Ack]

// server stores what it receives and acknowledges what it has stored.
type server struct {
	feedv1.UnimplementedFeedServiceServer

	// insert stores an event, or does nothing if its id is stored already.
	insert func(context.Context, *feedv1.Event) error
}

// Ingest sends an ack for each event, in the order of the events.
func (s *server) Ingest(stream ingestServer) error {
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil // the half-close: everything is stored
		}
		if err != nil {
			return err // the client is gone; what is stored stays stored
		}
		if err := s.insert(stream.Context(), ev); err != nil {
			return status.Error(codes.Internal, "event not stored")
		}
		// Not before: the ack is the promise that the event is stored.
		if err := stream.Send(&feedv1.Ack{Id: ev.GetId()}); err != nil {
			return err
		}
	}
}

// ingestCountingSends takes a nil from Send for a delivery, and leaves when it
// has sent the last event.
func ingestCountingSends(
	ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event,
) (sent []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // drops whatever is still queued
	stream, err := client.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			return sent, err
		}
		sent = append(sent, ev.GetId()) // it is queued, and no more is known
	}
	return sent, stream.CloseSend()
}

// ingestInLockStep waits for each ack before it sends the next event. What it
// returns is right, and every event costs it a round trip.
func ingestInLockStep(
	ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event,
) (acked []string, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	for _, ev := range events {
		stream.Send(ev) // if it fails, Recv tells why
		ack, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return acked, errUnacked
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetId())
	}
	stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		return acked, err
	}
	return acked, nil
}

// ingest sends all events without waiting for acks, and returns the ids of
// those whose acks arrived; the server sends one ack an event, in the order of
// the events. Without an error these are all. With one, each of the others may
// be stored or not: send them again, under the same ids.
func ingest(
	ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event,
) (acked []string, err error) {
	var sender sync.WaitGroup
	defer sender.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // nothing is left to lose: Recv has returned an error
	stream, err := client.Ingest(ctx)
	if err != nil {
		return nil, err
	}
	sender.Go(func() {
		for _, ev := range events {
			if stream.Send(ev) != nil {
				return // the stream has ended; Recv tells why
			}
		}
		stream.CloseSend() // asks for the end; cancel would force it
	})
	for {
		ack, err := stream.Recv()
		if errors.Is(err, io.EOF) && len(acked) < len(events) {
			return acked, errUnacked // OK, and yet not all is stored
		}
		if errors.Is(err, io.EOF) {
			return acked, nil
		}
		if err != nil {
			return acked, err
		}
		acked = append(acked, ack.GetId())
	}
}

// store keeps the ids of events, each once, however often it comes.
type store struct {
	mu      sync.Mutex
	ids     map[string]bool
	repeats int // events that came again
}

func (s *store) insert(_ context.Context, ev *feedv1.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ids == nil {
		s.ids = map[string]bool{}
	}
	if s.ids[ev.GetId()] {
		s.repeats++
	}
	s.ids[ev.GetId()] = true
	return nil
}

func (s *store) count() (stored, repeats int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids), s.repeats
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
	events := numbered(1, 200)
	for _, client := range []struct {
		counts string
		ingest func(context.Context, feedv1.FeedServiceClient, []*feedv1.Event) ([]string, error)
	}{
		{"its Sends", ingestCountingSends},
		{"acks, one by one", ingestInLockStep},
		{"acks as they come", ingest},
	} {
		var s store
		feed, _, end, err := serve(&server{insert: s.insert})
		if err != nil {
			return err
		}
		ids, err := client.ingest(ctx, feed, events)
		end() // waits for the handler
		stored, _ := s.count()
		say("counting %s: %d events, code %v; the server has stored %d",
			client.counts, len(ids), status.Code(err), stored)
	}
	say("the server dies between event 100 and its ack:")
	return resend(ctx, events, say)
}

// resend loses the server in the middle and sends again what has no ack.
func resend(ctx context.Context, events []*feedv1.Event, say func(string, ...any)) error {
	var s store
	var die func()
	dying := func(ctx context.Context, ev *feedv1.Event) error {
		err := s.insert(ctx, ev)
		if ev.GetId() == "100" {
			time.Sleep(10 * time.Millisecond) // time for the acks so far to arrive
			go die()
			<-ctx.Done()
		}
		return err
	}
	feed, stop, end, err := serve(&server{insert: dying})
	if err != nil {
		return err
	}
	die = stop
	acked, err := ingest(ctx, feed, events)
	end()
	stored, _ := s.count()
	say("  %d have an ack, code %v; stored %d", len(acked), status.Code(err), stored)

	feed, _, end, err = serve(&server{insert: s.insert})
	if err != nil {
		return err
	}
	again, err := ingest(ctx, feed, events[len(acked):])
	end()
	stored, repeats := s.count()
	say("  the rest again: %d have an ack, code %v; stored %d, and %d came twice",
		len(again), status.Code(err), stored, repeats)
	return ctx.Err()
}

// numbered makes events whose ids are the numbers from first to last.
func numbered(first, last int) []*feedv1.Event {
	var events []*feedv1.Event
	for id := first; id <= last; id++ {
		events = append(events, &feedv1.Event{Id: strconv.Itoa(id), Topic: "alerts"})
	}
	return events
}

// serve starts a server on loopback and connects to it. stop ends the server,
// end both, and both wait for the handlers.
func serve(svc feedv1.FeedServiceServer) (
	client feedv1.FeedServiceClient, stop, end func(), err error,
) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, svc)
	go srv.Serve(lis) // returns when srv is stopped

	conn, err := grpc.NewClient(lis.Addr().String(),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		srv.Stop()
		return nil, nil, nil, fmt.Errorf("client: %w", err)
	}
	end = func() { conn.Close(); srv.Stop() }
	return feedv1.NewFeedServiceClient(conn), srv.Stop, end, nil
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
