// Client streaming: many events go up, one receipt comes back.
//
// The program uploads events to a handler that sends its receipt last, to one
// that forgets it and to one that goes on working after it, with clients that
// wait for the receipt and clients that do not.
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
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// uploadServer is the handler's side of the stream.
type uploadServer = grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]

// errDuplicate is what a repo says of an event that it has already.
var errDuplicate = errors.New("the event is stored already")

// server stores what is uploaded and counts what it stored.
type server struct {
	feedv1.UnimplementedFeedServiceServer

	// insert stores an event. It is a field so that the story below can
	// make it fail.
	insert func(context.Context, *feedv1.Event) error
}

// UploadEvents ends with the receipt: nothing is left to do after it.
func (s *server) UploadEvents(stream uploadServer) error {
	stored, err := s.insertAll(stream)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&feedv1.UploadResult{Received: stored})
}

// insertAll stores events as they arrive, until the client half-closes.
func (s *server) insertAll(stream uploadServer) (int32, error) {
	ctx := stream.Context()
	var stored int32
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stored, nil // the half-close: that was all
		}
		if err != nil {
			return stored, err // the client is gone, or out of time
		}
		err = s.insert(ctx, ev)
		switch {
		case err == nil:
			stored++ // now, not before: the receipt is a promise
		case errors.Is(err, errDuplicate):
			// Sent again by a client that never saw its receipt. It is
			// stored, but not by this upload.
		case ctx.Err() != nil: // the client has left: no fault of yours
			return stored, status.FromContextError(ctx.Err()).Err()
		default:
			// A real server logs err here. The client learns nothing of
			// it: it names parts of the server.
			return stored, status.Error(codes.Internal, "event not stored")
		}
	}
}

// silentServer stores everything and says nothing.
type silentServer struct{ server }

// UploadEvents returns nil at the half-close, as a server that streams its
// replies does. The client waits for a message, and there is none.
func (s *silentServer) UploadEvents(stream uploadServer) error {
	_, err := s.insertAll(stream)
	return err
}

// hastyServer has something left to do when it has sent the receipt.
type hastyServer struct {
	server
	flush func(context.Context) error
}

// UploadEvents takes SendAndClose at its word. It only sends: the client
// waits for the return, and an error discards the receipt.
func (s *hastyServer) UploadEvents(stream uploadServer) error {
	stored, err := s.insertAll(stream)
	if err != nil {
		return err
	}
	receipt := &feedv1.UploadResult{Received: stored}
	if err := stream.SendAndClose(receipt); err != nil {
		return err
	}
	return s.flush(stream.Context())
}

// uploadWithoutReceipt half-closes and leaves. It never learns what became of
// its events, and the stream stays open until ctx ends.
func uploadWithoutReceipt(
	ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event,
) error {
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return err
	}
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	return stream.CloseSend()
}

// uploadReturningEOF waits for the receipt, but takes the io.EOF of Send for
// a reason.
func uploadReturningEOF(
	ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event,
) (int32, error) {
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, err
	}
	for _, ev := range events {
		if err := stream.Send(ev); err != nil {
			return 0, err
		}
	}
	receipt, err := stream.CloseAndRecv()
	return receipt.GetReceived(), err
}

// upload returns the number on the receipt, or the status that came instead.
func upload(
	ctx context.Context, client feedv1.FeedServiceClient, events []*feedv1.Event,
) (int32, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // whatever happens below, the stream ends with this call
	stream, err := client.UploadEvents(ctx)
	if err != nil {
		return 0, err
	}
	for _, ev := range events {
		err := stream.Send(ev)
		if errors.Is(err, io.EOF) {
			break // the stream is over; CloseAndRecv knows why
		}
		if err != nil {
			return 0, err
		}
	}
	receipt, err := stream.CloseAndRecv()
	if err != nil {
		return 0, err
	}
	return receipt.GetReceived(), nil
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
	repo := &memory{}
	whole, closeWhole, err := serve(&server{insert: repo.insert})
	if err != nil {
		return err
	}
	defer closeWhole()
	silent, closeSilent, err := serve(&silentServer{server{insert: repo.insert}})
	if err != nil {
		return err
	}
	defer closeSilent()
	flush := func(ctx context.Context) error {
		pause(ctx, pace/2)
		return status.Error(codes.Internal, "flush failed")
	}
	hasty, closeHasty, err := serve(&hastyServer{server{insert: repo.insert}, flush})
	if err != nil {
		return err
	}
	defer closeHasty()
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }

	say("Three events, one receipt:")
	n, err := upload(ctx, whole, events(1, 3, 10))
	say("  received %d, error %v, stored %d", n, err, repo.len())
	n, err = upload(ctx, whole, events(2, 4, 10))
	say("  two of them again and a new one: received %d, error %v, stored %d",
		n, err, repo.len())

	say("A handler that returns nil without SendAndClose:")
	_, err = upload(ctx, silent, events(11, 13, 10))
	say("  code %v, stored %d", status.Code(err), repo.len())
	say("  text %q", status.Convert(err).Message())

	say("A handler that fails after SendAndClose:")
	start := time.Now()
	_, err = upload(ctx, hasty, events(21, 23, 10))
	say("  no receipt after %v, but code %v, stored %d",
		time.Since(start).Round(100*time.Millisecond), status.Code(err), repo.len())

	say("A repo that is full after the second of 1,000 events:")
	repo.limit(repo.len() + 2)
	_, err = upload(ctx, whole, events(1001, 2000, 1000))
	say("  CloseAndRecv knows why: code %v, stored %d", status.Code(err), repo.len())
	_, err = uploadReturningEOF(ctx, whole, events(3001, 4000, 1000))
	say("  Send does not:          error %v", err)
	err = uploadWithoutReceipt(ctx, whole, events(5001, 5003, 10))
	say("  CloseSend never asks:   error %v", err)
	return ctx.Err()
}

// events makes events with the ids first to last and bodies of size bytes.
func events(first, last, size int) []*feedv1.Event {
	var list []*feedv1.Event
	for id := first; id <= last; id++ {
		list = append(list, &feedv1.Event{
			Id: strconv.Itoa(id), Topic: "alerts", Body: strings.Repeat("x", size),
		})
	}
	return list
}

// memory is a repo. Handlers run at the same time, so it has a lock.
type memory struct {
	mu  sync.Mutex
	ids map[string]bool
	max int // 0 for no limit
}

func (m *memory) insert(_ context.Context, ev *feedv1.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.ids[ev.GetId()]:
		return errDuplicate
	case m.max > 0 && len(m.ids) >= m.max:
		return errors.New("the disk is full")
	case m.ids == nil:
		m.ids = map[string]bool{}
	}
	m.ids[ev.GetId()] = true
	return nil
}

func (m *memory) limit(n int) { m.mu.Lock(); defer m.mu.Unlock(); m.max = n }

func (m *memory) len() int { m.mu.Lock(); defer m.mu.Unlock(); return len(m.ids) }

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
