// A leaked stream makes no error and no line in a log. The program leaks some,
// and looks at them through two windows: a goroutine profile, which says where
// each waits and, with labels, for whom; and channelz, which counts the streams
// of each connection.
//
// With the argument serve it stays, for grpcurl: it prints what to type.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	channelzpb "google.golang.org/grpc/channelz/grpc_channelz_v1"
	channelz "google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

type watchServer = grpc.ServerStreamingServer[feedv1.Event]

// server has two events in each topic. Topic "deploys" ends then, the others
// stay open.
type server struct {
	feedv1.UnimplementedFeedServiceServer
}

// Watch labels its goroutine: a profile says then which topic it is for, and
// so it does of every goroutine that is started in there.
func (s *server) Watch(req *feedv1.WatchRequest, stream watchServer) (err error) {
	labels := pprof.Labels("topic", req.GetTopic())
	pprof.Do(stream.Context(), labels, func(ctx context.Context) {
		err = s.watch(ctx, req.GetTopic(), stream)
	})
	return err
}

func (s *server) watch(ctx context.Context, topic string, stream watchServer) error {
	stream.SetHeader(metadata.Pairs("feed-version", "1"))
	stream.SetTrailer(metadata.Pairs("events-sent", "2"))
	for _, id := range []string{"1", "2"} {
		if err := stream.Send(&feedv1.Event{Id: id}); err != nil {
			return err
		}
	}
	if topic == "deploys" {
		return nil
	}
	<-ctx.Done() // no further event
	return ctx.Err()
}

func (s *server) UploadEvents(
	stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult],
) error {
	for n := int32(0); ; n++ {
		if _, err := stream.Recv(); errors.Is(err, io.EOF) {
			return stream.SendAndClose(&feedv1.UploadResult{Received: n})
		} else if err != nil {
			return err
		}
	}
}

func (s *server) Chat(
	stream grpc.BidiStreamingServer[feedv1.ChatMessage, feedv1.ChatMessage],
) error {
	for {
		msg, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = stream.Send(&feedv1.ChatMessage{Text: msg.GetText()})
		}
		if err != nil {
			return err
		}
	}
}

// firstEvent leaks its stream: it leaves without a cancel. All that a profile
// shows of it here is a goroutine of gRPC's.
func firstEvent(ctx context.Context, client feedv1.FeedServiceClient, topic string) error {
	stream, err := client.Watch(ctx, &feedv1.WatchRequest{Topic: topic})
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

// firstEventLabelled leaks as well, and gRPC's goroutine, which is started in
// Watch, says for whom: it has inherited the labels.
func firstEventLabelled(
	ctx context.Context, client feedv1.FeedServiceClient, topic string,
) (err error) {
	labels := pprof.Labels("caller", "firstEventLabelled", "topic", topic)
	pprof.Do(ctx, labels, func(ctx context.Context) {
		err = firstEvent(ctx, client, topic)
	})
	return err
}

// A group is one entry of a goroutine profile: how many goroutines have the
// same frames and the same labels.
type group struct {
	n      int
	labels string // {"topic":"alerts"}, empty if there are none
	frames string // the innermost first, a line each
}

// profile reads a profile of goroutines in the form of debug=1, which has the
// labels.
func profile(name string) (all []group) {
	var text strings.Builder
	pprof.Lookup(name).WriteTo(&text, 1) // a Builder has no errors
	entry := regexp.MustCompile(`(?m)^(\d+) @.*\n(?:# labels: (.*)\n)?((?:#.*\n)*)`)
	for _, m := range entry.FindAllStringSubmatch(text.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		all = append(all, group{n, m[2], m[3]})
	}
	return all
}

// A count says how many streams or calls there were, and how many have ended.
type count struct{ started, ended int64 }

func (c count) open() int64 { return c.started - c.ended }

// sockets asks channelz for the streams of every connection that a server of
// the process has accepted. Who does not say how many gets the first 50.
func sockets(ctx context.Context, client channelzpb.ChannelzClient) (all []count, err error) {
	servers, err := client.GetServers(ctx, &channelzpb.GetServersRequest{MaxResults: 1000})
	for _, srv := range servers.GetServer() {
		refs, err := client.GetServerSockets(ctx, &channelzpb.GetServerSocketsRequest{
			ServerId:   srv.GetRef().GetServerId(),
			MaxResults: 100_000,
		})
		if err != nil {
			return nil, err
		}
		for _, ref := range refs.GetSocketRef() {
			one, err := client.GetSocket(ctx, &channelzpb.GetSocketRequest{
				SocketId: ref.GetSocketId(),
			})
			if status.Code(err) == codes.NotFound {
				continue // closed meanwhile: channelz has forgotten it
			} else if err != nil {
				return nil, err
			}
			data := one.GetSocket().GetData()
			ended := data.GetStreamsSucceeded() + data.GetStreamsFailed()
			all = append(all, count{data.GetStreamsStarted(), ended})
		}
	}
	return all, err
}

// newServer is what to set so that a leak can be seen.
func newServer(operators bool, options ...grpc.ServerOption) *grpc.Server {
	// Among the options a grpc.StatsHandler, for the method and the age of each
	// stream: the exercise makes one.
	srv := grpc.NewServer(options...)
	if operators { // on a port or a network that nobody else reaches
		reflection.Register(srv)                      // grpcurl needs no .proto, nor does a stranger
		channelz.RegisterChannelzServiceToServer(srv) // the process, by connection
	}
	return srv
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	tell := run
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		tell = hold
	}
	if err := tell(ctx, os.Stdout, time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story on w. pace is how long a reader needs for a line.
func run(ctx context.Context, w io.Writer, pace time.Duration) error {
	say := func(format string, args ...any) {
		if ctx.Err() != nil {
			return // to a reader who is leaving it says nothing
		}
		fmt.Fprintf(w, format+"\n", args...)
		select {
		case <-time.After(pace):
		case <-ctx.Done():
		}
	}
	addr, end, err := serve()
	if err != nil {
		return err
	}
	defer end()
	conn, err := dial(addr)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()
	client := feedv1.NewFeedServiceClient(conn)
	if err := errors.Join(
		firstEvent(ctx, client, "alerts"),
		firstEventLabelled(ctx, client, "alerts"),
		firstEventLabelled(ctx, client, "alerts"),
	); err != nil {
		return err
	}
	say("three readers have had an event of alerts and left: no error, no log line.")
	say("A goroutine profile, where a watcher of grpc or a handler waits:")
	waits := regexp.MustCompile(`grpc\.newClientStream\S*func\d+|main\.\(\*server\)\.watch`)
	for _, g := range profile("goroutine") {
		if where := waits.FindString(g.frames); where != "" {
			say("  %d × %-40s %s", g.n, where, g.labels)
		}
	}
	say("channelz, for each connection of a server in this process; its own question counts, too:")
	all, err := sockets(ctx, channelzpb.NewChannelzClient(conn))
	if err != nil {
		return err
	}
	for _, c := range all {
		say("  %d streams started, %d ended: %d open", c.started, c.ended, c.open())
	}
	return ctx.Err()
}

// hold serves until ctx ends, for grpcurl.
func hold(ctx context.Context, w io.Writer, _ time.Duration) error {
	addr, end, err := serve()
	if err != nil {
		return err
	}
	defer end()
	fmt.Fprintf(w, "grpcurl -plaintext %s list\n", addr)
	<-ctx.Done()
	return nil
}

// serve starts a server on loopback. The returned function ends it and waits
// for its handlers.
func serve(options ...grpc.ServerOption) (addr string, end func(), err error) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, fmt.Errorf("listen: %w", err)
	}
	srv := newServer(true, append(options, grpc.WaitForHandlers(true))...)
	feedv1.RegisterFeedServiceServer(srv, &server{})
	go srv.Serve(lis) // returns when srv is stopped
	return lis.Addr().String(), srv.Stop, nil
}

func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
}
