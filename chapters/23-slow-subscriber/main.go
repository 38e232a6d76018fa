// One publisher, many streams, and a client that stops reading. What becomes
// of the publisher, and of the others, is decided where an event meets a
// queue that is full.
//
// The program lets one of two clients stall, in six ways of publishing.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"slices"
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

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// A feed has one topic. publish is for one goroutine.
type feed interface {
	watch(watchServer) error // is the handler of a subscriber
	publish(*feedv1.Event)
	queued() int // events, of all subscribers
	end()        // lets the handlers send what is queued, and return nil
}

// sendingBroker sends from the publisher. Its lock guards the list of streams, and
// is held while Send waits for a client.
type sendingBroker struct {
	mu      sync.Mutex
	streams []watchServer
	over    chan struct{}
}

func (b *sendingBroker) publish(ev *feedv1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, stream := range b.streams {
		stream.Send(ev) // waits while this client does not read
	}
}

func (b *sendingBroker) watch(stream watchServer) error {
	b.mu.Lock()
	b.streams = append(b.streams, stream)
	b.mu.Unlock()
	stream.SendHeader(nil) // tells the client that it is subscribed
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.streams = slices.DeleteFunc(b.streams, func(s watchServer) bool { return s == stream })
	}()
	select {
	case <-b.over:
		return nil
	case <-stream.Context().Done():
		return stream.Context().Err()
	}
}

func (b *sendingBroker) queued() int { return 0 }

func (b *sendingBroker) end() { close(b.over) }

// A broker puts events into queues. Each handler sends from its own.
type broker struct {
	put  policy
	size int // of a queue

	mu   sync.Mutex      // guards the list, and is never held for long
	subs []*subscription // in the order in which they came
}

// A subscription is the queue of one handler.
type subscription struct {
	size int
	more chan struct{} // holds a token: queue or err has changed
	room sync.Cond     // of mu: queue has become shorter, or err was set

	mu    sync.Mutex
	queue []*feedv1.Event
	err   error // takes no more events; what next returns after the last
	lost  int   // events that were dropped or replaced
}

// A policy lets an event into a queue, or does not. It is called with the
// subscription's lock held.
type policy func(s *subscription, ev *feedv1.Event)

// waitForRoom keeps the publisher until the handler has taken an event.
func waitForRoom(s *subscription, ev *feedv1.Event) {
	for len(s.queue) == s.size && s.err == nil {
		s.room.Wait()
	}
	s.queue = append(s.queue, ev)
}

// grow has no limit.
func grow(s *subscription, ev *feedv1.Event) {
	s.queue = append(s.queue, ev)
}

// drop leaves out what finds the queue full. Nobody hears of it.
func drop(s *subscription, ev *feedv1.Event) {
	if len(s.queue) == s.size {
		s.lost++
		return
	}
	s.queue = append(s.queue, ev)
}

// coalesce keeps the last event of each id: where events are states, a newer
// one says all. The queue is as long as there are ids.
func coalesce(s *subscription, ev *feedv1.Event) {
	for i, old := range s.queue {
		if old.GetId() == ev.GetId() {
			s.queue[i] = ev
			s.lost++
			return
		}
	}
	s.queue = append(s.queue, ev)
}

// errTooSlow reaches the client as it is.
var errTooSlow = status.Error(codes.ResourceExhausted, "too slow: events were missed")

// disconnect ends the subscription. What is queued is still sent, and then
// the client hears why there is no more.
func disconnect(s *subscription, ev *feedv1.Event) {
	if len(s.queue) == s.size {
		s.err = errTooSlow
		return
	}
	s.queue = append(s.queue, ev)
}

func (b *broker) publish(ev *feedv1.Event) {
	for _, s := range b.all() {
		s.mu.Lock()
		if s.err == nil {
			b.put(s, ev)
		}
		ended := s.err != nil
		s.mu.Unlock()
		s.wake()
		if ended {
			b.forget(s)
		}
	}
}

func (b *broker) all() []*subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.subs)
}

func (b *broker) subscribe() *subscription {
	s := &subscription{size: b.size, more: make(chan struct{}, 1)}
	s.room.L = &s.mu
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs = append(b.subs, s)
	return s
}

func (b *broker) forget(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.subs = slices.DeleteFunc(b.subs, func(other *subscription) bool { return other == s })
}

func (b *broker) queued() (n int) {
	for _, s := range b.all() {
		s.mu.Lock()
		n += len(s.queue)
		s.mu.Unlock()
	}
	return n
}

func (b *broker) end() {
	for _, s := range b.all() {
		s.close(io.EOF)
	}
}

// close ends a subscription, unless it has ended. A publisher that waits for
// room goes on.
func (s *subscription) close(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.room.Broadcast()
	s.wake()
}

func (s *subscription) wake() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

// next waits for an event, the end, or ctx.
func (s *subscription) next(ctx context.Context) (*feedv1.Event, error) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			ev := s.queue[0]
			s.queue = s.queue[1:]
			s.mu.Unlock()
			s.room.Broadcast()
			return ev, nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return nil, err
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// watch sends a subscription's events at the pace of its client.
func (b *broker) watch(stream watchServer) error {
	s := b.subscribe()
	defer b.forget(s)
	defer s.close(io.EOF)
	stream.SendHeader(nil) // tells the client that it is subscribed
	for {
		ev, err := s.next(stream.Context())
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
}

type server struct {
	feedv1.UnimplementedFeedServiceServer
	feed
}

func (s *server) Watch(_ *feedv1.WatchRequest, stream watchServer) error { return s.watch(stream) }

// A way is a kind of feed. size is the length of its queues, if it has any.
type way struct {
	name string
	feed func(size int) feed
}

var ways = []way{
	{"Send under the lock", func(int) feed { return &sendingBroker{over: make(chan struct{})} }},
	{"wait for room", with(waitForRoom)},
	{"grow", with(grow)},
	{"drop", with(drop)},
	{"coalesce", with(coalesce)},
	{"disconnect", with(disconnect)},
}

func with(put policy) func(int) feed {
	return func(size int) feed { return &broker{put: put, size: size} }
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const events = 200 // in the story

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	say("%d events of 1 KiB for two clients, of which one has stopped reading; queues of 16", events)
	for _, way := range ways {
		during, other, err := stall(ctx, way.feed(16))
		if err != nil {
			return err
		}
		say("  %-20s %s; then the other got %s", way.name, during, other)
	}
	return ctx.Err()
}

// stall publishes to a client that reads and to one that does not. When
// nothing moves any more the other one reads, too. The two texts say how far
// it came, and what the other one got.
func stall(ctx context.Context, f feed) (during, other string, err error) {
	client, end, err := serve(&server{feed: f})
	if err != nil {
		return "", "", err
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	var publisher sync.WaitGroup
	defer publisher.Wait()
	defer cancel()
	stalled, err := open(ctx, client)
	if err != nil {
		return "", "", err
	}
	reader, err := open(ctx, client)
	if err != nil {
		return "", "", err
	}
	var published, got atomic.Int64
	done := make(chan struct{})
	publisher.Go(func() {
		defer f.end()
		defer close(done)
		for i := range int64(events) {
			f.publish(event(i))
			published.Add(1)
			for got.Load() <= i { // no faster than the reader reads
				if _, err := reader.Recv(); err != nil {
					return
				}
				got.Add(1)
			}
			// As long as Send takes them, a handler that is late is no stall.
			for i <= 128 && f.queued() > 0 {
				time.Sleep(50 * time.Microsecond)
			}
		}
	})
	for last := int64(-1); last != published.Load(); {
		last = published.Load()
		select {
		case <-done:
			last = events
		case <-time.After(15 * time.Millisecond):
		}
	}
	during = fmt.Sprintf("%d published, the reader got %d", published.Load(), got.Load())
	n := 0
	for err == nil {
		if _, err = stalled.Recv(); err == nil {
			n++
		}
	}
	if !errors.Is(err, io.EOF) {
		return during, fmt.Sprintf("%d and %v", n, status.Code(err)), ctx.Err()
	}
	return during, fmt.Sprintf("%d and io.EOF", n), nil
}

// open returns when the handler has subscribed.
func open(ctx context.Context, client feedv1.FeedServiceClient) (grpc.ServerStreamingClient[feedv1.Event], error) {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys"})
	if err != nil {
		return nil, err
	}
	_, err = stream.Header()
	return stream, err
}

// event is the state number i of one of ten things. Its encoding has 1 KiB.
func event(i int64) *feedv1.Event {
	return &feedv1.Event{Id: strconv.FormatInt(i%10, 10), Body: fmt.Sprintf("%-1018d", i)}
}

// serve starts a server on loopback and connects to it. The returned function
// ends both and waits for the handlers. The windows are fixed, so that the
// numbers are the same each time.
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
