// gRPC does not remember what a stream has delivered. A client that opens it
// again has to say where to go on, by the cursor of the last event that it has
// handled, and the server has to join its log with what happens now.
//
// The program follows a topic whose server restarts while the client is busy,
// and tells which events were handled: by clients that keep their cursor in
// four ways, and from handlers that join log and live in two.
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
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// A store is what a client still has when it starts again.
type store interface {
	Load() (cursor uint64, err error) // what was saved last, 0 if nothing was
	Save(cursor uint64) error
	// Resync replaces what the client made of the events by a snapshot of the
	// topic, and saves the cursor up to which it reaches.
	Resync(ctx context.Context) error
}

// A follower hands the events of the topic to handle. It opens the stream again
// after wait, until ctx, handle or the store ends it.
type follower func(ctx context.Context, client feedv1.FeedServiceClient, st store,
	wait time.Duration, handle func(*feedv1.Event) error) error

// resume goes on behind the last event that was handled, and saved after that.
func resume(ctx context.Context, client feedv1.FeedServiceClient, st store,
	wait time.Duration, handle func(*feedv1.Event) error) error {
	for {
		last, err := st.Load()
		if err != nil {
			return err
		}
		end, err := watch(ctx, client, last, func(ev *feedv1.Event) error {
			if ev.GetCursor() <= last {
				return nil // the server has sent it twice
			}
			if err := handle(ev); err != nil {
				return err
			}
			last = ev.GetCursor()
			return st.Save(last) // a crash before this line hands it over again
		})
		if err == nil {
			err = again(ctx, st, wait, end)
		}
		if err != nil {
			return err
		}
	}
}

// resumeWithoutCursor asks for all that the server has, each time.
func resumeWithoutCursor(ctx context.Context, client feedv1.FeedServiceClient, st store,
	wait time.Duration, handle func(*feedv1.Event) error) error {
	return resume(ctx, client, noCursor{st}, wait, handle)
}

type noCursor struct{ store }

func (noCursor) Load() (uint64, error) { return 0, nil }

// resumeSavingFirst loses the event that it has saved when it crashes.
func resumeSavingFirst(ctx context.Context, client feedv1.FeedServiceClient, st store,
	wait time.Duration, handle func(*feedv1.Event) error) error {
	return resume(ctx, client, st, wait, func(ev *feedv1.Event) error {
		if err := st.Save(ev.GetCursor()); err != nil {
			return err
		}
		return handle(ev)
	})
}

// resumeFromReceived receives ahead of a slow handle. What waits in its queue when
// the stream ends is dropped, and the next stream begins behind it.
func resumeFromReceived(ctx context.Context, client feedv1.FeedServiceClient, st store,
	wait time.Duration, handle func(*feedv1.Event) error) error {
	received, err := st.Load()
	for err == nil {
		streamCtx, cancel := context.WithCancel(ctx)
		queue, handled := make(chan *feedv1.Event, 16), make(chan error, 1)
		go func() {
			var err error
			for ev := range queue {
				if streamCtx.Err() != nil {
					continue
				}
				if err = handle(ev); err == nil {
					err = st.Save(ev.GetCursor())
				}
				if err != nil {
					cancel()
				}
			}
			handled <- err
		}()
		end, _ := watch(streamCtx, client, received, func(ev *feedv1.Event) error {
			received = ev.GetCursor()
			queue <- ev
			return nil
		})
		cancel()
		close(queue)
		if err = <-handled; err == nil {
			err = again(ctx, st, wait, end)
		}
		if status.Code(end) == codes.OutOfRange && err == nil {
			received, err = st.Load()
		}
	}
	return err
}

// watch opens one stream and returns how it ended, or the error of each, which
// is the client's own: its code means nothing here.
func watch(ctx context.Context, client feedv1.FeedServiceClient, after uint64,
	each func(*feedv1.Event) error) (end, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "deploys", AfterCursor: after})
	if err != nil {
		return err, nil
	}
	for {
		ev, err := stream.Recv()
		if err == nil && ctx.Err() != nil { // Recv still returns what had come
			err = status.FromContextError(ctx.Err()).Err()
		}
		if err != nil {
			return err, nil
		}
		if err := each(ev); err != nil {
			return nil, err
		}
	}
}

// again returns nil if the stream should be opened again.
func again(ctx context.Context, st store, wait time.Duration, end error) error {
	switch status.Code(end) {
	case codes.Unavailable, codes.ResourceExhausted: // the server is gone, or we were too slow for it
	case codes.OutOfRange: // it has not what comes behind our cursor
		if err := st.Resync(ctx); err != nil {
			return err
		}
	default:
		return end
	}
	select {
	case <-time.After(wait): // chapter 29 has better waits
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// A feed is the server's side of a topic: a log, and those who are told of each
// event that is written to it.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	handle func(f *feed, after uint64, stream watchServer) error
	reads  time.Duration // what each look into the log takes

	mu      sync.Mutex
	log     []*feedv1.Event
	trimmed uint64 // the cursor of the last event that is not kept any more
	last    uint64 // the cursor of the last event
	subs    map[chan *feedv1.Event]bool
}

func newFeed(handle func(*feed, uint64, watchServer) error, reads time.Duration) *feed {
	return &feed{handle: handle, reads: reads, subs: map[chan *feedv1.Event]bool{}}
}

func (f *feed) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	return f.handle(f, req.GetAfterCursor(), stream)
}

// subscribeThenReplay registers, replays, and skips what has come both ways.
func (f *feed) subscribeThenReplay(after uint64, stream watchServer) error {
	live, leave := f.subscribe()
	defer leave()
	last, err := f.replay(after, stream)
	if err != nil {
		return err
	}
	return goOn(live, last, stream)
}

// replayThenSubscribe misses what is published between its last read and its
// subscription.
func (f *feed) replayThenSubscribe(after uint64, stream watchServer) error {
	last, err := f.replay(after, stream)
	if err != nil {
		return err
	}
	live, leave := f.subscribe()
	defer leave()
	return goOn(live, last, stream)
}

// replay sends what the log has behind a cursor.
func (f *feed) replay(after uint64, stream watchServer) (last uint64, err error) {
	pause(stream.Context(), f.reads)
	kept, err := f.since(after)
	if err != nil {
		return 0, err
	}
	for _, ev := range kept {
		pause(stream.Context(), f.reads)
		if err := stream.Send(ev); err != nil {
			return 0, err
		}
		after = ev.GetCursor()
	}
	return after, nil
}

// since reads the log. A cursor that it cannot serve without a gap is an error.
func (f *feed) since(after uint64) ([]*feedv1.Event, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if after != 0 && after < f.trimmed || after > f.last {
		return nil, status.Errorf(codes.OutOfRange, "cursor %d, log %d to %d", after, f.trimmed+1, f.last)
	}
	return slices.Clone(f.log[max(after, f.trimmed)-f.trimmed:]), nil // its cursors have no holes
}

// goOn sends what is published, but nothing twice.
func goOn(live <-chan *feedv1.Event, last uint64, stream watchServer) error {
	for {
		select {
		case ev, ok := <-live:
			if !ok {
				return status.Error(codes.ResourceExhausted, "too slow: come again with your cursor")
			}
			if ev.GetCursor() <= last {
				continue
			}
			if err := stream.Send(ev); err != nil {
				return err
			}
			last = ev.GetCursor()
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// subscribe returns a bounded queue, which is closed when it overflows: with a
// cursor that costs its owner a reconnect, and no event.
func (f *feed) subscribe() (live chan *feedv1.Event, leave func()) {
	live = make(chan *feedv1.Event, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.subs[live] = true
	return live, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.subs, live)
	}
}

// publish writes to the log first: what a subscriber has seen is there for the
// next one.
func (f *feed) publish(body string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	ev := &feedv1.Event{Topic: "deploys", Body: body, Cursor: f.last}
	f.log = append(f.log, ev)
	for live := range f.subs {
		select {
		case live <- ev:
		default:
			close(live)
			delete(f.subs, live)
		}
	}
}

// A ledger is what the client has on disk: an entry for each event that it has
// handled, and its cursor.
type ledger struct {
	entries  []uint64
	saved    uint64
	snapshot func() uint64 // stands for a call that returns the state, and its cursor
}

// add makes an entry, a second one if the event comes a second time.
func (l *ledger) add(ev *feedv1.Event) error {
	l.entries = append(l.entries, ev.GetCursor())
	return nil
}

// addOnce is idempotent: the entries tell which event was the last.
func (l *ledger) addOnce(ev *feedv1.Event) error {
	if n := len(l.entries); n > 0 && l.entries[n-1] >= ev.GetCursor() {
		return nil
	}
	return l.add(ev)
}

func (l *ledger) Load() (uint64, error)    { return l.saved, nil }
func (l *ledger) Save(cursor uint64) error { l.saved = cursor; return nil }

func (l *ledger) Resync(context.Context) error {
	l.saved, l.entries = l.snapshot(), nil
	for n := range l.saved {
		l.entries = append(l.entries, n+1)
	}
	return nil
}

// dialOptions are what the client of a long stream needs beside its cursor.
func dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), // in production TLS
		// A network that dies without a word ends the stream after 40s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		// While the channel waits no stream can be opened. By default its waits grow to 120s.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 5 * time.Second, // a dial that nobody answers fails then, not after 20s
		}),
	}
}

// serverOptions go with them.
func serverOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		// By default a ping each 30s is too many: the server would close the connection.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 20 * time.Second}),
		// Stop returns when no handler reads the log any more.
		grpc.WaitForHandlers(true),
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

var errCrash = errors.New("crash")

// A trial is a client that follows events 1 to 5, and what happens while it
// handles one of them for the first time.
type trial struct {
	name    string
	follow  follower
	watch   func(*feed, uint64, watchServer) error
	add     func(*ledger, *feedv1.Event) error
	at      uint64
	happens func(s *stage, add func() error) error
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	while := max(pace/10, time.Millisecond)
	both, add := (*feed).subscribeThenReplay, (*ledger).add
	outage := func(s *stage, add func() error) error {
		pause(ctx, 2*while) // event 3 arrives, too
		err := s.restart("4", "5")
		pause(ctx, 2*while) // the client learns of it
		return errors.Join(err, add())
	}
	crash := func(*stage, func() error) error { return errCrash }
	addAndCrash := func(_ *stage, add func() error) error { return errors.Join(add(), errCrash) }
	meanwhile := func(s *stage, add func() error) error {
		s.publish("4")
		for !s.watched() && ctx.Err() == nil {
			pause(ctx, time.Millisecond)
		}
		s.publish("5")
		return add()
	}
	for _, part := range []struct {
		what   string
		events int // are in the log at first
		trials []trial
	}{
		{"The server restarts while event 2 is handled and 3 has come. 4 and 5 are published meanwhile.", 3, []trial{
			{"resumeWithoutCursor", resumeWithoutCursor, both, add, 2, outage},
			{"resumeFromReceived", resumeFromReceived, both, add, 2, outage},
			{"resume", resume, both, add, 2, outage},
		}},
		{"The client crashes while it handles event 2.", 5, []trial{
			{"resumeSavingFirst", resumeSavingFirst, both, add, 2, crash},
			{"resume", resume, both, add, 2, crash},
		}},
		{"The client crashes when it has handled event 2 and not saved it.", 5, []trial{
			{"resume, add", resume, both, add, 2, addAndCrash},
			{"resume, addOnce", resume, both, (*ledger).addOnce, 2, addAndCrash},
		}},
		{"Event 4 is published while the server replays 1 to 3, and 5 when it has subscribed.", 3, []trial{
			{"replayThenSubscribe", resume, (*feed).replayThenSubscribe, add, 1, meanwhile},
			{"subscribeThenReplay", resume, both, add, 1, meanwhile},
		}},
	} {
		fmt.Fprintln(w, part.what)
		pause(ctx, pace)
		for _, t := range part.trials {
			handled, err := t.play(ctx, part.events, while)
			if err != nil || ctx.Err() != nil {
				return err
			}
			fmt.Fprintf(w, "  %-20s handled %v\n", t.name, handled)
			pause(ctx, pace)
		}
	}
	return nil
}

// play starts the client again after each crash, until event 5 is handled.
func (t trial) play(ctx context.Context, events int, while time.Duration) ([]uint64, error) {
	s := &stage{feed: newFeed(t.watch, while)}
	for range events {
		s.publish("")
	}
	if err := s.start(); err != nil {
		return nil, err
	}
	defer func() { s.srv.Stop() }()
	conn, err := grpc.NewClient("passthrough:///feed", append(dialOptions(), grpc.WithContextDialer(s.dial))...)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	disk, happened := &ledger{}, false
	for err = errCrash; errors.Is(err, errCrash); {
		err = t.follow(ctx, feedv1.NewFeedServiceClient(conn), disk, while, func(ev *feedv1.Event) error {
			add := func() error { return t.add(disk, ev) }
			if ev.GetCursor() == t.at && !happened {
				happened = true
				return t.happens(s, add)
			}
			if ev.GetCursor() == 5 {
				cancel()
			}
			return add()
		})
	}
	if status.Code(err) == codes.Canceled {
		err = nil
	}
	return disk.entries, err
}

// A stage is a feed on loopback, and its server of the moment.
type stage struct {
	*feed
	srv  *grpc.Server
	addr atomic.Value // of srv: string
}

func (s *stage) start() error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.srv = grpc.NewServer(serverOptions()...)
	feedv1.RegisterFeedServiceServer(s.srv, s)
	go s.srv.Serve(lis) // returns when srv is stopped
	s.addr.Store(lis.Addr().String())
	return nil
}

// restart stops the server. Another one has its log.
func (s *stage) restart(meanwhile ...string) error {
	old := s.srv
	err := s.start()
	old.Stop()
	for _, body := range meanwhile {
		s.publish(body)
	}
	return err
}

// watched tells whether a handler has subscribed.
func (s *stage) watched() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.subs) > 0
}

func (s *stage) dial(ctx context.Context, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", s.addr.Load().(string))
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
