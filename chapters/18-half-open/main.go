// When a cable is pulled nobody is told. A connection over which nothing comes
// looks the same whether its peer is silent or gone: somebody must ask.
//
// The program watches a silent topic over real TCP, pulls the cable, and looks
// who notices: with what gRPC does by itself, and then with a server that asks
// and a client that listens for a beat.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// askUnannounced has a client that asks after so much silence, and a server
// that nobody has told: it takes frequent questions for abuse.
func askUnannounced(
	silence, patience time.Duration,
) (server []grpc.ServerOption, client []grpc.DialOption) {
	return nil, []grpc.DialOption{
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: silence, Timeout: patience}),
	}
}

// ask lets each side ask the other after so much silence, 10 s or more. One that
// then hears nothing within its patience, which is longer than any round trip,
// closes the connection, and ends all its streams.
func ask(
	silence, patience time.Duration,
) (server []grpc.ServerOption, client []grpc.DialOption) {
	server = []grpc.ServerOption{
		// The server asks, or it may learn of a dead client only after two hours.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: silence, Timeout: patience}),
		// It lets all clients ask, or it hangs up on them. Half: a PING may be late.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{
			MinTime: silence / 2, PermitWithoutStream: true}),
	}
	client = []grpc.DialOption{
		// The client asks, also without a stream, or it may wait for the dead for hours.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: silence, Timeout: patience, PermitWithoutStream: true}),
		// The connection is kept, or it is closed after 30 minutes without a call.
		grpc.WithIdleTimeout(0),
	}
	return server, client
}

// feed has one topic, on which nothing happens.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	beat  time.Duration // if not 0, how often the handler is heard from
	ended chan end      // a value for each handler that has returned, which the caller takes
}

// An end is when something ended, and with which error.
type end struct {
	at  time.Time
	err error
}

// Watch sends an event to say that the stream is up, and then is silent but for
// its beat: an empty event, which a proxy passes on, as it does not with a PING.
func (f *feed) Watch(req *feedv1.WatchRequest, stream watchServer) error {
	var beat <-chan time.Time
	if f.beat > 0 {
		ticker := time.NewTicker(f.beat)
		defer ticker.Stop()
		beat = ticker.C
	}
	err := stream.Send(&feedv1.Event{Topic: req.GetTopic(), Body: "watching"})
	for err == nil {
		select {
		case <-beat:
			err = stream.Send(&feedv1.Event{})
		case <-stream.Context().Done():
			err = stream.Context().Err()
		}
	}
	f.ended <- end{time.Now(), err}
	return err
}

// A watcher hands the events of a topic to handle until the stream ends, and
// returns why: io.EOF if the handler returned nil.
type watcher = func(context.Context, feedv1.FeedServiceClient, func(*feedv1.Event)) error

// errSilent is why watchBeats gives up.
var errSilent = errors.New("nothing was heard")

// watch waits for whatever comes, for as long as it takes.
func watch(
	ctx context.Context, client feedv1.FeedServiceClient, handle func(*feedv1.Event),
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil && ev.GetTopic() != "" {
			handle(ev)
		}
	}
	return err
}

// watchBeats is watch, and gives up after so much silence, be it before the first
// event: several beats, so that a late one does no harm. While handle works it
// does not listen, and counts no silence.
func watchBeats(
	ctx context.Context, client feedv1.FeedServiceClient, silence time.Duration,
	handle func(*feedv1.Event),
) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := fmt.Errorf("%w for %v", errSilent, silence)
	timer := time.AfterFunc(silence, func() { cancel(silent) })
	defer timer.Stop()
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: "alerts"})
	for err == nil {
		var ev *feedv1.Event
		if ev, err = stream.Recv(); err == nil {
			timer.Stop()
			if ev.GetTopic() != "" { // not a beat
				handle(ev)
			}
			timer.Reset(silence)
		}
	}
	// Not the caller's cancel, and not an end that came first: chapter 17.
	if status.Code(err) == codes.Canceled && context.Cause(ctx) == silent {
		return silent
	}
	return err
}

// cable is a connection that can be pulled: from then on what either end sends
// is lost. It stands for the network, no more: a FIN would still come through, but
// nobody sends one that changes the story.
type cable struct {
	net.Conn
	pulled atomic.Bool
}

func (c *cable) Read(b []byte) (int, error) {
	for {
		n, err := c.Conn.Read(b)
		if err != nil || !c.pulled.Load() {
			return n, err
		}
	}
}

func (c *cable) Write(b []byte) (int, error) {
	if c.pulled.Load() {
		return len(b), nil
	}
	return c.Conn.Write(b)
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
	say := func(format string, args ...any) { say(ctx, w, pace, format, args...) }
	short := max(pace/2, 5*time.Millisecond)
	say("Nobody asks:")
	if err := pull(ctx, &feed{}, nil, watch, 8*short, say); err != nil {
		return err
	}
	// A client may ask after 10s at the earliest, which is too long for a story.
	say("The server asks after 1s of silence, the client listens for a beat each %v:", short)
	asking, _ := ask(time.Second, short*3/2) // no beat is due when it gives up
	silence := max(4*short, time.Second)     // it also bounds how long the stream may take to open
	listening := func(
		ctx context.Context, client feedv1.FeedServiceClient, handle func(*feedv1.Event),
	) error {
		return watchBeats(ctx, client, silence, handle)
	}
	return pull(ctx, &feed{beat: short}, asking, listening, 8*short, say)
}

// pull lets a client watch, pulls its cable, and says who has noticed after so
// much patience.
func pull(
	ctx context.Context, f *feed, options []grpc.ServerOption, watch watcher,
	patience time.Duration, say func(string, ...any),
) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	f.ended = make(chan end, 1)
	srv := grpc.NewServer(append(options, grpc.WaitForHandlers(true))...)
	feedv1.RegisterFeedServiceServer(srv, f)
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()

	tcp, err := net.Dial("tcp", lis.Addr().String())
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer tcp.Close()
	wire := &cable{Conn: tcp}
	dial := func(context.Context, string) (net.Conn, error) { return wire, nil }
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	watching, cancel := context.WithCancel(ctx)
	defer cancel()
	up, gaveUp := make(chan struct{}), make(chan end, 1)
	go func() {
		client := feedv1.NewFeedServiceClient(conn)
		err := watch(watching, client, func(*feedv1.Event) { close(up) }) // the only one
		gaveUp <- end{time.Now(), err}
	}()
	select {
	case <-up:
	case early := <-gaveUp:
		return early.err
	}
	wire.pulled.Store(true)
	pulled, over := time.Now(), time.After(patience)
	say("  the cable is pulled")
	select {
	case <-over:
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, side := range []struct {
		name string
		end  chan end
	}{{"client", gaveUp}, {"server", f.ended}} {
		select {
		case e := <-side.end:
			took := e.at.Sub(pulled).Round(time.Millisecond)
			say("  the %s noticed after %v: %v", side.name, took, e.err)
		default:
			say("  the %s has not noticed after %v", side.name, patience)
		}
	}
	return ctx.Err()
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
