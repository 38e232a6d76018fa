// One publisher, many streams, and a client that stops reading. What becomes
// of the publisher, and of the others, is decided where an event meets a
// queue that is full: in one of the six functions that come first here.
//
// The program lets one of two clients stall, six times.
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
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// A policy is what the publisher does with an event for one subscriber. It
// holds the broker's lock.
type policy func(s *subscription, ev *feedv1.Event)

// sendUnderLock has no queue. While Send waits for this client, nobody else
// gets the event, comes or goes.
func sendUnderLock(s *subscription, ev *feedv1.Event) {
	s.stream.Send(ev) // an error ends the stream, and so the subscription
}

// waitForRoom keeps the publisher until the handler has taken an event. Wait
// gives the lock back meanwhile, so others can come and go.
func waitForRoom(s *subscription, ev *feedv1.Event) {
	for s.full() && s.err == nil {
		s.changed.Wait()
	}
	s.push(ev)
}

// grow has no limit.
func grow(s *subscription, ev *feedv1.Event) {
	s.push(ev)
}

// drop leaves out what finds the queue full. Nobody hears of it.
func drop(s *subscription, ev *feedv1.Event) {
	if !s.full() {
		s.push(ev)
	}
}

// coalesce keeps the last event of each id: where events are states, a newer
// one says all. The queue is never longer than there are ids.
func coalesce(s *subscription, ev *feedv1.Event) {
	for i, old := range s.queue {
		if old.GetId() == ev.GetId() {
			s.queue[i] = ev
			return
		}
	}
	s.push(ev)
}

// disconnect ends the subscription. What is queued is still sent, and then
// the client hears why there is no more.
func disconnect(s *subscription, ev *feedv1.Event) {
	if s.full() {
		s.end(errTooSlow)
		return
	}
	s.push(ev)
}

// errTooSlow reaches the client as it is.
var errTooSlow = status.Error(codes.ResourceExhausted, "too slow: events were missed")

// A broker hands each event to all who have subscribed.
type broker struct {
	put  policy
	size int // of a queue

	mu   sync.Mutex      // guards what follows, and the fields of subscriptions
	subs []*subscription // in the order in which they came
}

// A subscription is the queue of one handler.
type subscription struct {
	b       *broker
	stream  watchServer
	changed sync.Cond // of b.mu: queue or err has changed
	queue   []*feedv1.Event
	err     error // once it is set, queue gets no more; next returns it after the last
}

func (s *subscription) full() bool { return len(s.queue) >= s.b.size }

func (s *subscription) push(ev *feedv1.Event) {
	s.queue = append(s.queue, ev)
	s.changed.Broadcast()
}

// publish is for one goroutine: two would mix up the order of events.
func (b *broker) publish(ev *feedv1.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range slices.Clone(b.subs) { // end changes the list meanwhile
		if s.err == nil {
			b.put(s, ev)
		}
	}
}

// watch is the handler. It sends events at the pace of its client.
func (b *broker) watch(stream watchServer) error {
	s := b.subscribe(stream)
	for {
		ev, err := s.next()
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

// subscribe returns a subscription, and tells the client. It ends with the
// stream's context: when the client leaves, or the handler returns.
func (b *broker) subscribe(stream watchServer) *subscription {
	s := &subscription{b: b, stream: stream, changed: sync.Cond{L: &b.mu}}
	b.mu.Lock()
	b.subs = append(b.subs, s)
	stream.SendHeader(nil) // never waits; with the lock, so that no publisher sends meanwhile
	b.mu.Unlock()
	context.AfterFunc(stream.Context(), func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		s.end(stream.Context().Err())
	})
	return s
}

// end lets the broker forget a subscription. The caller holds the lock.
func (s *subscription) end(err error) {
	if s.err == nil {
		s.err = err
		s.b.subs = slices.DeleteFunc(s.b.subs, func(other *subscription) bool { return other == s })
		s.changed.Broadcast()
	}
}

// close ends all subscriptions.
func (b *broker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range slices.Clone(b.subs) {
		s.end(io.EOF)
	}
}

// queued tells how many events wait in the queues.
func (b *broker) queued() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.subs {
		n += len(s.queue)
	}
	return n
}

// next waits for an event or for the end.
func (s *subscription) next() (*feedv1.Event, error) {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	for len(s.queue) == 0 {
		if s.err != nil {
			return nil, s.err
		}
		s.changed.Wait()
	}
	ev := s.queue[0]
	s.queue = s.queue[1:]
	s.changed.Broadcast() // there is room
	return ev, nil
}

var ways = []struct {
	name string
	put  policy
}{
	{"Send under the lock", sendUnderLock},
	{"wait for room", waitForRoom},
	{"grow", grow},
	{"drop", drop},
	{"coalesce", coalesce},
	{"disconnect", disconnect},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const events = 40 // in the story

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say(ctx, w, pace, "%d events of 16 KiB for two clients, of which one does not read; queues of 4", events)
	for _, way := range ways {
		what, err := stall(ctx, &broker{put: way.put, size: 4})
		if err != nil {
			return err
		}
		say(ctx, w, pace, "  %-20s %s", way.name, what)
	}
	return ctx.Err()
}

// stall publishes to a client that reads, and to one that reads only when
// nothing moves any more. It returns what became of both.
func stall(ctx context.Context, b *broker) (string, error) {
	var publisher sync.WaitGroup
	defer publisher.Wait()
	client, stop, err := serve(&server{watch: b.watch})
	if err != nil {
		return "", err
	}
	defer stop() // ends the streams, and so a Send for which the publisher waits
	stalled, err := open(ctx, client)
	if err != nil {
		return "", err
	}
	reader, err := open(ctx, client)
	if err != nil {
		return "", err
	}
	progress := make(chan int, events)
	publisher.Go(func() {
		defer b.close()
		for i := range events {
			b.publish(event(i, 16<<10))
			if _, err := reader.Recv(); err != nil { // no faster than this client reads
				return
			}
			progress <- i + 1
			// Send takes 8 and waits with one. A handler that is late with these is no stall.
			for i <= 8 && b.queued() > 0 {
				time.Sleep(50 * time.Microsecond)
			}
		}
	})
	published := 0
	for moving := true; moving && published < events; {
		select {
		case published = <-progress:
		case <-time.After(30 * time.Millisecond):
			moving = false
		}
	}
	for got := 0; ; got++ {
		if _, err := stalled.Recv(); err != nil {
			end := status.Convert(err).Message()
			return fmt.Sprintf("%2d published and read by the other; then this one gets %d, and %s", published, got, end), ctx.Err()
		}
	}
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

// event is state number i of one of ten things. Its encoding has size bytes.
func event(i, size int) *feedv1.Event {
	return &feedv1.Event{Id: strconv.Itoa(i % 10), Body: fmt.Sprintf("%-*d", size-6, i)}
}

type server struct {
	feedv1.UnimplementedFeedServiceServer
	watch func(watchServer) error
}

func (s *server) Watch(_ *feedv1.WatchRequest, stream watchServer) error { return s.watch(stream) }

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
	return feedv1.NewFeedServiceClient(conn), func() { conn.Close(); srv.Stop() }, nil
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
