// A client waits for the result of a job: for one message, which comes late.
// The program runs a job over loopback and prints what the server was asked,
// when, and what the client got.
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
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
)

// hold is how long a call of Wait may wait for the end of its job. A proxy on the
// way must allow more: some end what is silent for 15 s, hence 10 s in the chapter.
const hold = 20 * time.Second

// errNoJob is what Result says about a job that nobody has started.
var errNoJob = errors.New("no such job")

// jobs is what a server knows. Its methods return at once.
type jobs interface {
	// Result returns what came out of a job, which is kept for all who ask: an
	// event with an id. It returns nil while the job runs.
	Result(job string) (*feedv1.Event, error)
	// Subscribe tells of an end that is yet to come: C is closed then. It tells
	// nothing about a job that has ended before. Close gives it back.
	Subscribe(job string) *subscription
}

type subscription struct {
	C     <-chan struct{}
	Close func()
}

type server struct {
	feedv1.UnimplementedFeedServiceServer
	jobs jobs
}

// Watch is the old way to wait, for clients that cannot do without: a stream
// with one event.
func (s *server) Watch(req *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	sub := s.jobs.Subscribe(req.GetTopic())
	defer sub.Close()
	for {
		result, err := s.jobs.Result(req.GetTopic())
		if err != nil {
			return err
		}
		if result != nil {
			return stream.Send(result)
		}
		select {
		case <-sub.C:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// A waiter has the unary method that is to come. feed.proto has none of this
// kind; waiting and callWait are what protoc would make of
//
//	service Jobs { rpc Wait(WatchRequest) returns (Event); }
type waiter interface {
	Wait(context.Context, *feedv1.WatchRequest) (*feedv1.Event, error)
}

var waiting = &grpc.ServiceDesc{ServiceName: "feed.v1.Jobs", HandlerType: (*waiter)(nil), Methods: []grpc.MethodDesc{{
	MethodName: "Wait",
	Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		req := new(feedv1.WatchRequest)
		if err := decode(req); err != nil {
			return nil, err
		}
		return srv.(waiter).Wait(ctx, req)
	},
}}}

// callWait calls Wait. The topic of its request is the job.
func callWait(ctx context.Context, conn grpc.ClientConnInterface, req *feedv1.WatchRequest, opts ...grpc.CallOption) (*feedv1.Event, error) {
	ev := new(feedv1.Event)
	if err := conn.Invoke(ctx, "/feed.v1.Jobs/Wait", req, ev, opts...); err != nil {
		return nil, err
	}
	return ev, nil
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Stdout, 3*time.Second); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run waits for a job that takes a while, and again when it has ended.
func run(ctx context.Context, w io.Writer, while time.Duration) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	b := &builds{w: w, start: time.Now(), done: make(chan struct{})}
	srv := grpc.NewServer(grpc.WaitForHandlers(true))
	s := &server{jobs: b}
	feedv1.RegisterFeedServiceServer(srv, s)
	srv.RegisterService(waiting, s)
	go srv.Serve(lis) // returns when srv is stopped
	defer srv.Stop()
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	defer conn.Close()

	timer := time.AfterFunc(while, func() { b.say("server: the build has ended"); close(b.done) })
	defer timer.Stop()
	ctx, cancel := context.WithTimeout(ctx, 2*while)
	defer cancel()
	for _, job := range []string{"build", "build", "bulid"} {
		b.say("client: wait(%q)", job)
		result, err := wait(ctx, conn, job)
		if err != nil {
			b.say("client: wait returned %v: %s", status.Code(err), status.Convert(err).Message())
			continue
		}
		b.say("client: wait returned %q", result.GetBody())
	}
	return nil
}

// builds has one job.
type builds struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
	done  chan struct{} // closed when it has ended
}

func (b *builds) Result(job string) (*feedv1.Event, error) {
	if job != "build" {
		return nil, errNoJob
	}
	select {
	case <-b.done:
		return &feedv1.Event{Id: "1", Topic: job, Body: "green"}, nil
	default:
		return nil, nil
	}
}

func (b *builds) Subscribe(job string) *subscription {
	b.say("server: somebody subscribes to %q", job)
	return &subscription{C: b.done, Close: func() { b.say("server: and is gone") }}
}

func (b *builds) say(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintf(b.w, "%6v  %s\n", time.Since(b.start).Round(time.Millisecond), fmt.Sprintf(format, args...))
}
