// Most calls need no stream. The program hands in events in three ways, and
// then hears of events in three ways, and counts what each costs.
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
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type (
	watchServer  = grpc.ServerStreamingServer[feedv1.Event]
	uploadServer = grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]
	ingestServer = grpc.BidiStreamingServer[feedv1.Event, feedv1.Ack]
)

// A puller has two unary methods, for which feed.proto has no names. Either
// returns the newest event behind a cursor, or an empty one.
type puller interface {
	Latest(context.Context, *feedv1.WatchRequest) (*feedv1.Event, error) // answers at once
	Next(context.Context, *feedv1.WatchRequest) (*feedv1.Event, error)   // waits for an event
}

// pull is what protoc would make of them, whose code also calls interceptors.
var pull = &grpc.ServiceDesc{ServiceName: "feed.v1.Pull", HandlerType: (*puller)(nil), Methods: []grpc.MethodDesc{
	{MethodName: "Latest", Handler: unary(puller.Latest)},
	{MethodName: "Next", Handler: unary(puller.Next)},
}}

func unary(method func(puller, context.Context, *feedv1.WatchRequest) (*feedv1.Event, error)) grpc.MethodHandler {
	return func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		req := new(feedv1.WatchRequest)
		if err := decode(req); err != nil {
			return nil, err
		}
		return method(srv.(puller), ctx, req)
	}
}

const (
	hold   = 10 * time.Second // Next waits: Envoy ends a call after 15 s, if not told otherwise
	within = 30 * time.Second // its client waits: longer than hold and a slow round trip
)

// server has one topic, of which only the newest event counts.
type server struct {
	feedv1.UnimplementedFeedServiceServer
	hold time.Duration
	beat time.Duration // between two heartbeats of Watch; 0: none

	mu      sync.Mutex
	newest  *feedv1.Event
	changed chan struct{} // closed by the next event
}

func newServer(hold time.Duration) *server {
	return &server{hold: hold, newest: new(feedv1.Event), changed: make(chan struct{})}
}

func (s *server) add(body string) (cursor uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest = &feedv1.Event{Body: body, Cursor: s.newest.GetCursor() + 1}
	close(s.changed)
	s.changed = make(chan struct{})
	return s.newest.GetCursor()
}

// behind returns the newest event behind the cursor, an empty one if there is
// none, and what tells of the next. Both come from one moment: between two
// questions an event could come, and nobody would tell of it.
func (s *server) behind(cursor uint64) (*feedv1.Event, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.newest.GetCursor() > cursor {
		return s.newest, s.changed
	}
	return new(feedv1.Event), s.changed
}

func (s *server) Latest(_ context.Context, req *feedv1.WatchRequest) (*feedv1.Event, error) {
	ev, _ := s.behind(req.GetAfterCursor())
	return ev, nil
}

// Next is a long poll. It answers when there is an event, at once if it missed
// one, and in any case after hold.
func (s *server) Next(ctx context.Context, req *feedv1.WatchRequest) (*feedv1.Event, error) {
	over := time.After(s.hold)
	for {
		ev, changed := s.behind(req.GetAfterCursor())
		if ev.GetCursor() > 0 {
			return ev, nil
		}
		select {
		case <-changed:
		case <-over:
			return ev, nil // nothing yet: ask again
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		}
	}
}

func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	var tick <-chan time.Time
	if s.beat > 0 {
		ticker := time.NewTicker(s.beat)
		defer ticker.Stop()
		tick = ticker.C
	}
	for cursor := req.GetAfterCursor(); ; {
		ev, changed := s.behind(cursor)
		if ev.GetCursor() == 0 {
			select {
			case <-changed:
				continue
			case <-tick: // an empty event is a heartbeat
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
		if err := stream.Send(ev); err != nil {
			return err
		}
		cursor = max(cursor, ev.GetCursor())
	}
}

func (s *server) Publish(_ context.Context, req *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	return &feedv1.PublishResponse{Id: fmt.Sprint(s.add(req.GetBody()))}, nil
}

func (s *server) UploadEvents(stream uploadServer) error {
	for n := int32(0); ; n++ {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&feedv1.UploadResult{Received: n})
		}
		if err != nil {
			return err
		}
		s.add(ev.GetBody())
	}
}

func (s *server) Ingest(stream ingestServer) error {
	for {
		ev, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&feedv1.Ack{Id: fmt.Sprint(s.add(ev.GetBody()))}); err != nil {
			return err
		}
	}
}

// publishEach makes a unary call for each event.
func publishEach(ctx context.Context, client feedv1.FeedServiceClient, n int) error {
	for range n {
		if _, err := client.Publish(ctx, &feedv1.PublishRequest{Body: "green"}); err != nil {
			return err
		}
	}
	return nil
}

// uploadEach makes a stream for each event.
func uploadEach(ctx context.Context, client feedv1.FeedServiceClient, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // releases a stream whose Send failed
	for range n {
		stream, err := client.UploadEvents(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&feedv1.Event{Body: "green"}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := stream.CloseAndRecv(); err != nil { // says why Send failed
			return err
		}
	}
	return nil
}

// ingestAll makes one stream, and waits for each answer.
func ingestAll(ctx context.Context, client feedv1.FeedServiceClient, n int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Ingest(ctx)
	for i := 0; i < n && err == nil; i++ {
		if err = stream.Send(&feedv1.Event{Body: "green"}); err == nil || errors.Is(err, io.EOF) {
			_, err = stream.Recv()
		}
	}
	return err
}

// A hearer hands over the events of the topic until ctx ends.
type hearer func(ctx context.Context, conn grpc.ClientConnInterface, handle func(*feedv1.Event)) error

// pollEach asks again and again. What it hears is up to one interval old.
func pollEach(every time.Duration) hearer {
	return func(ctx context.Context, conn grpc.ClientConnInterface, handle func(*feedv1.Event)) error {
		ticker := time.NewTicker(every)
		defer ticker.Stop()
		return ask(ctx, conn, "/feed.v1.Pull/Latest", handle, ticker.C)
	}
}

// longPoll asks, and is answered when there is something to say.
func longPoll(ctx context.Context, conn grpc.ClientConnInterface, handle func(*feedv1.Event)) error {
	return ask(ctx, conn, "/feed.v1.Pull/Next", handle, nil)
}

// ask calls a method again and again, with the cursor of the last event. A
// deadline of its own ends each call whose answer is lost.
func ask(ctx context.Context, conn grpc.ClientConnInterface, method string, handle func(*feedv1.Event), tick <-chan time.Time) error {
	for cursor := uint64(0); ; {
		if tick != nil {
			select {
			case <-tick:
			case <-ctx.Done():
				return status.FromContextError(ctx.Err()).Err()
			}
		}
		ev := new(feedv1.Event)
		call, cancel := context.WithTimeout(ctx, within)
		err := conn.Invoke(call, method, &feedv1.WatchRequest{AfterCursor: cursor}, ev)
		cancel()
		if err != nil {
			return err
		}
		if ev.GetCursor() > cursor {
			cursor = ev.GetCursor()
			handle(ev)
		}
	}
}

// watch holds a stream open.
func watch(ctx context.Context, conn grpc.ClientConnInterface, handle func(*feedv1.Event)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := feedv1.NewFeedServiceClient(conn).Watch(ctx, &feedv1.WatchRequest{})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil && ev.GetCursor() > 0 {
			handle(ev)
		}
	}
	return err
}

// For unary calls: each goes to the next server, by default all to one. Only calls that read are repeated.
const dialConfig = `{"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [{
	"name": [{"service": "feed.v1.Pull"}],
	"retryPolicy": {"maxAttempts": 4, "retryableStatusCodes": ["UNAVAILABLE"], "initialBackoff": "0.2s", "maxBackoff": "2s", "backoffMultiplier": 2}}]}`

func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{grpc.WithDefaultServiceConfig(dialConfig),
		// A dead network ends a call within 15 s, and not at its deadline.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second})}
}

func serverOptions() []grpc.ServerOption {
	// Else the server takes such pings for abuse, and ends the connection within a minute.
	return []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second})}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, time.Second/4); err != nil && ctx.Err() == nil {
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
	const n = 50
	say("%d events are handed in, each after the answer to the one before:", n)
	for _, way := range []struct {
		name string
		send func(context.Context, feedv1.FeedServiceClient, int) error
	}{{"a unary call for each", publishEach}, {"a stream for each", uploadEach}, {"one stream for all", ingestAll}} {
		l, err := connect(newServer(hold))
		if err != nil {
			return err
		}
		client := feedv1.NewFeedServiceClient(l.conn)
		err = publishEach(ctx, client, 1) // the connection is up
		start, bytes := time.Now(), l.bytes.Load()
		if err == nil {
			err = way.send(ctx, client, n)
		}
		took, bytes := time.Since(start)/n, l.bytes.Load()-bytes
		l.end()
		if err != nil {
			return err
		}
		say("  %-24s %4d bytes and %v each", way.name, bytes/n, took.Round(time.Microsecond))
	}
	const events = 4
	gap := max(pace, 4*time.Millisecond)
	say("%d events come, one each %v:", events, gap)
	for _, way := range []struct {
		name string
		hear hearer
	}{{"polled ten times a gap", pollEach(gap / 10)}, {"polled twice a gap", pollEach(gap / 2)}, {"long polled", longPoll}, {"watched", watch}} {
		s := newServer(hold)
		l, err := connect(s)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		var late time.Duration
		heard := 0
		var adding sync.WaitGroup
		adding.Go(func() {
			for range events {
				pause(ctx, gap+gap/13) // not in step with the polls
				s.add(time.Now().Format(time.RFC3339Nano))
			}
			pause(ctx, gap/2) // until the last is heard
			cancel()
		})
		err = way.hear(ctx, l.conn, func(ev *feedv1.Event) {
			if at, err := time.Parse(time.RFC3339Nano, ev.GetBody()); err == nil {
				late, heard = late+time.Since(at), heard+1
			}
		})
		cancel()
		adding.Wait()
		l.end()
		if status.Code(err) != codes.Canceled {
			return err
		}
		say("  %-24s %4d bytes, %d events heard, %v late", way.name, l.bytes.Load(), heard, (late / time.Duration(max(heard, 1))).Round(10*time.Microsecond))
	}
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// A link is a server on loopback, a connection to it, and how many bytes went
// over that.
type link struct {
	conn  *grpc.ClientConn
	bytes atomic.Int64
	end   func()
}

func connect(s *server) (*link, error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	srv := grpc.NewServer(append(serverOptions(), grpc.WaitForHandlers(true))...)
	feedv1.RegisterFeedServiceServer(srv, s)
	srv.RegisterService(pull, s)
	go srv.Serve(lis) // returns when srv is stopped
	l := new(link)
	l.conn, err = grpc.NewClient(lis.Addr().String(), append(dialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "tcp", addr)
			return counted{conn, &l.bytes}, err
		}))...)
	if err != nil {
		srv.Stop()
		return nil, fmt.Errorf("client: %w", err)
	}
	l.end = func() { l.conn.Close(); srv.Stop() }
	return l, nil
}

type counted struct {
	net.Conn
	bytes *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.bytes.Add(int64(n))
	return n, err
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.bytes.Add(int64(n))
	return n, err
}
