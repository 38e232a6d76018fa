// Eight readers share a pool of connections to a server that takes two streams
// on each. The program prints who got a place, when, and on which connection,
// and how many streams the server had on each at most.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

const (
	conns   = 3
	perConn = 2
	readers = 8
)

// server has topics without events. It answers at once.
type server struct {
	feedv1.UnimplementedFeedServiceServer
}

func (server) Watch(_ *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run lets the readers read for a while each, in ones that come every tenth of
// it.
func run(ctx context.Context, w io.Writer, while time.Duration) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(grpc.MaxConcurrentStreams(perConn), grpc.WaitForHandlers(true))
	feedv1.RegisterFeedServiceServer(srv, server{})
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	log := &log{w: w, start: time.Now(), names: map[*grpc.ClientConn]int{}}
	p := newPool(func() (*grpc.ClientConn, error) {
		conn, err := grpc.NewClient(lis.Addr().String(),
			grpc.WithTransportCredentials(insecure.NewCredentials()))
		log.dialled(conn)
		return conn, err
	}, conns, perConn)
	defer log.close()
	defer p.Close()

	log.say("%d readers, at most %d connections with %d places each", readers, conns, perConn)
	var all sync.WaitGroup
	for n := range readers {
		all.Go(func() { read(ctx, p, n+1, while, log) })
		pause(ctx, while/10)
	}
	all.Wait()
	return ctx.Err()
}

// read takes a place, reads for a while, and gives the place back.
func read(ctx context.Context, p *pool, n int, while time.Duration, log *log) {
	ctx, cancel := context.WithTimeout(ctx, 3*while)
	defer cancel()
	conn, release, err := p.Get(ctx)
	if err != nil {
		log.say("reader %d: Get: %v", n, err)
		return
	}
	defer release()
	ctx, cancelStream := context.WithCancel(ctx)
	defer cancelStream() // before release: while the stream lives it has the place
	log.say("reader %d: a place on connection %d", n, log.name(conn))
	stream, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{Topic: "deploys"})
	if err == nil {
		_, err = stream.Header()
	}
	if err != nil {
		log.say("reader %d: no stream on connection %d: %v", n, log.name(conn), err)
		return
	}
	log.say("reader %d: its stream is open", n)
	pause(ctx, while)
	log.say("reader %d: done", n)
}

// log prints what happened and when, and knows the connections by number.
type log struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
	names map[*grpc.ClientConn]int
}

func (l *log) say(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "%6v  %s\n", time.Since(l.start).Round(time.Millisecond), fmt.Sprintf(format, args...))
}

func (l *log) dialled(conn *grpc.ClientConn) {
	l.mu.Lock()
	l.names[conn] = len(l.names) + 1
	n := len(l.names)
	l.mu.Unlock()
	l.say("dial: connection %d", n)
}

func (l *log) name(conn *grpc.ClientConn) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.names[conn]
}

// close closes what the pool has left open.
func (l *log) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.names {
		conn.Close()
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
