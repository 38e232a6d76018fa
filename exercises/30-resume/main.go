// A server that restarts, forgets old events and sends some twice, and a client
// that crashes. The program prints what each side saw.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// A store is what a client still has when it starts again.
type store interface {
	// Load returns the cursor that was saved last, 0 if none was.
	Load() (cursor uint64, err error)
	Save(cursor uint64) error
	// Resync replaces what was made of the events by a snapshot of the topic, and
	// saves the cursor up to which that reaches: Load returns it from then on.
	Resync(ctx context.Context) error
}

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// server has a script for each stream.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	log *log

	mu      sync.Mutex
	streams int
}

func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	s.mu.Lock()
	s.streams++
	n := s.streams
	s.mu.Unlock()
	s.log.say("server: stream %d, after_cursor %d", n, req.GetAfterCursor())
	var cursors []uint64
	var end error
	switch n {
	case 1:
		cursors, end = []uint64{1, 2, 3}, status.Error(codes.Unavailable, "the server restarts")
	case 2:
		cursors = []uint64{3, 4, 5} // 3 a second time
	case 3:
		end = status.Error(codes.OutOfRange, "the log begins with 20")
	default:
		cursors = []uint64{21, 22}
	}
	for _, cursor := range cursors {
		if err := stream.Send(&feedv1.Event{Topic: req.GetTopic(), Cursor: cursor}); err != nil {
			return err
		}
		pause(stream.Context(), 50*time.Millisecond)
	}
	return end
}

// memory is a store that ends with the program.
type memory struct {
	log   *log
	saved uint64
}

func (d *memory) Load() (uint64, error) { return d.saved, nil }

func (d *memory) Save(cursor uint64) error {
	d.log.say("client:   saves %d", cursor)
	d.saved = cursor
	return nil
}

func (d *memory) Resync(context.Context) error {
	d.log.say("client:   resync: a snapshot up to 20")
	d.saved = 20
	return nil
}

// log prints what happened, from any goroutine.
type log struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *log) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, format+"\n", args...)
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run calls resume until the topic ends, again after a crash.
func run(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Second)
	defer cancel()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	l := &log{w: w}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, &server{log: l})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()

	crash, d := errors.New("crash"), &memory{log: l}
	crashed := false
	for {
		err := resume(ctx, feedv1.NewFeedServiceClient(conn), d, func(ev *feedv1.Event) error {
			if ev.GetCursor() == 5 && !crashed {
				crashed = true
				l.say("client:   crashes while it handles 5")
				return crash
			}
			l.say("client:   handles %d", ev.GetCursor())
			return nil
		})
		l.say("client: resume returned %v, saved is %d", err, d.saved)
		if !errors.Is(err, crash) {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
