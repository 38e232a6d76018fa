package main

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const aDay = 24 * time.Hour

// victim names the environment variable that makes this binary a server that
// may die. It serves until its input ends.
const victim = "INTERCEPTORS_VICTIM"

func TestMain(m *testing.M) {
	mode := os.Getenv(victim)
	if mode == "" {
		os.Exit(m.Run())
	}
	var opts []grpc.ServerOption
	if mode == "recovering" {
		opts = append(opts, grpc.StreamInterceptor(recoverPanics(unreported)))
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	srv := grpc.NewServer(opts...)
	feedv1.RegisterFeedServiceServer(srv, feed{chat: func(stream chatServer) error {
		return each(stream, func(msg *feedv1.ChatMessage) error {
			switch msg.GetText() {
			case "panic":
				panic("at your request")
			case "helper":
				go func() { panic("at your request") }()
				return nil
			}
			return stream.Send(msg)
		})
	}})
	go srv.Serve(lis)
	fmt.Println(lis.Addr())
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func TestRunLeavesNothingBehind(t *testing.T) { lab.EndsWell(t, run) }

// A feed is a server whose Chat is given.
type feed struct {
	feedv1.UnimplementedFeedServiceServer
	chat func(chatServer) error
}

func (f feed) Chat(stream chatServer) error { return f.chat(stream) }

func (feed) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	if _, err := stream.Recv(); err != io.EOF {
		return err
	}
	return stream.SendAndClose(&feedv1.UploadResult{})
}

func (feed) Publish(_ context.Context, req *feedv1.PublishRequest) (*feedv1.PublishResponse, error) {
	if req.GetTopic() == "panic" {
		panic("at your request")
	}
	return &feedv1.PublishResponse{}, nil
}

// each hands every line to handle.
func each(stream chatServer, handle func(*feedv1.ChatMessage) error) error {
	for {
		msg, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = handle(msg)
		}
		if err != nil {
			return err
		}
	}
}

// echoes is a Chat that sends every line back.
func echoes(stream chatServer) error { return each(stream, stream.Send) }

// show logs what the test saw, and if that is not right, what it wanted: the
// rest of format, from ", want".
func show(t testing.TB, right bool, format string, args ...any) {
	t.Helper()
	text := fmt.Sprintf(format, args...)
	if !right {
		t.Error(text)
	}
	saw, _, _ := strings.Cut(text, ", want")
	t.Log(saw)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// connect serves svc on a link of its own and connects to it.
func connect(l *lab.Lab, svc feedv1.FeedServiceServer, serve []grpc.ServerOption, dial ...grpc.DialOption) (feedv1.FeedServiceClient, *lab.Link) {
	l.Helper()
	link := l.NewLink()
	link.Serve(svc, serve...)
	return feedv1.NewFeedServiceClient(link.Dial(dial...)), link
}

// open opens a chat, and cancels it at the end of the test if nobody else does.
func open(l *lab.Lab, client feedv1.FeedServiceClient) (chatClient, context.CancelFunc) {
	l.Helper()
	ctx, cancel := context.WithCancel(l.Context())
	chat, err := client.Chat(ctx)
	must(l, err)
	return chat, cancel
}

// onServer makes an interceptor of what it does with a stream and the way on.
func onServer(do func(stream grpc.ServerStream, next func(grpc.ServerStream) error) error) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return do(stream, func(s grpc.ServerStream) error { return handler(srv, s) })
	}
}

// next opens a client's stream.
type next = func(...grpc.CallOption) (grpc.ClientStream, error)

func onClient(do func(next) (grpc.ClientStream, error)) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return do(func(more ...grpc.CallOption) (grpc.ClientStream, error) {
			return open(ctx, desc, conn, method, append(slices.Clip(opts), more...)...)
		})
	}
}

func unreported(string, any, []byte) {}

// codeOf is the code with which a stream has ended: io.EOF is OK.
func codeOf(err error) codes.Code {
	if err == io.EOF {
		return codes.OK
	}
	return status.Code(err)
}

// grpc-go's server has no recover (server.go, handleStream and its callers): a
// panic is the end of the process, as anywhere in Go. The child says where it
// listens, and exits with 0 when its input ends.
func TestOnlyTheHandlersOwnGoroutineIsCoveredOverTCP(t *testing.T) {
	for _, tt := range []struct {
		mode, line  string
		its, others codes.Code
		exit        int
		report      string
	}{
		{"bare", "panic", codes.Unavailable, codes.Unavailable, 2, "panic: at your request"},
		{"recovering", "panic", codes.Internal, codes.OK, 0, ""},
		{"recovering", "helper", codes.Unavailable, codes.Unavailable, 2, "panic: at your request"},
		{"recovering", "unary", codes.Unavailable, codes.Unavailable, 2, "panic: at your request"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		child := exec.CommandContext(ctx, os.Args[0])
		child.Env = append(os.Environ(), victim+"="+tt.mode)
		var stderr strings.Builder
		child.Stderr = &stderr
		in, err := child.StdinPipe()
		must(t, err)
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		addr, err := bufio.NewReader(out).ReadString('\n')
		must(t, err)
		conn, err := grpc.NewClient(strings.TrimSpace(addr), grpc.WithTransportCredentials(insecure.NewCredentials()))
		must(t, err)
		defer conn.Close()
		client := feedv1.NewFeedServiceClient(conn)
		healthy, err := client.Chat(ctx)
		must(t, err)
		_, err = echo(healthy, "hello")
		must(t, err)
		bad, err := client.Chat(ctx)
		must(t, err)
		var its error
		if tt.line == "unary" {
			_, its = client.Publish(ctx, &feedv1.PublishRequest{Topic: "panic"})
		} else {
			_, its = echo(bad, tt.line)
		}
		_, others := echo(healthy, "still there?")
		in.Close()
		child.Wait()
		exit := child.ProcessState.ExitCode()
		first, _, _ := strings.Cut(stderr.String(), "\n")
		show(t, status.Code(its) == tt.its && status.Code(others) == tt.others && exit == tt.exit && strings.HasPrefix(first, tt.report),
			"%s, %s: the chat ends with %v, the other chat with %v, the process with %d: %q, want %v, %v, %d: %q", tt.mode, tt.line, status.Code(its), status.Code(others), exit, first, tt.its, tt.others, tt.exit, tt.report)
	}
}

// A report has the text and the stack of the panic, and the client neither.
func TestARecoveredPanicEndsOneStreamAndIsReported(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var reports []string
		client, _ := connect(l, server{}, []grpc.ServerOption{grpc.ChainStreamInterceptor(recoverPanics(func(method string, panicked any, stack []byte) {
			reports = append(reports, fmt.Sprint(method, ": ", panicked, ", the stack names its line: ", strings.Contains(string(stack), "31-interceptors/main.go:")))
		}))})
		healthy, cancel := open(l, client)
		defer cancel()
		_, err := echo(healthy, "hello")
		must(l, err)
		bad, cancel := open(l, client)
		defer cancel()
		_, its := echo(bad, "")
		text, others := echo(healthy, "still there?")
		synctest.Wait()
		want := "/feed.v1.FeedService/Chat: runtime error: index out of range [0] with length 0, the stack names its line: true"
		show(l, its.Error() == "rpc error: code = Internal desc = internal error" && text == "still" && others == nil && slices.Equal(reports, []string{want}),
			"its client: %v; the other chat: %q, %v; reported: %q, want Internal, an answer and %q", its, text, others, reports, want)
	})
}

// Nobody writes a status (server.go, processRPC: the code after the handler is
// never reached), and nobody ends the stream.
func TestGoexitInAHandlerLeavesItsClientWaiting(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var ran, recovered atomic.Bool
		client, _ := connect(l, feed{chat: func(chatServer) error { ran.Store(true); runtime.Goexit(); return nil }},
			[]grpc.ServerOption{grpc.StreamInterceptor(recoverPanics(func(string, any, []byte) { recovered.Store(true) }))})
		chat, cancel := open(l, client)
		time.AfterFunc(aDay, cancel)
		start := time.Now()
		_, err := chat.Recv()
		took := time.Since(start)
		show(l, ran.Load() && !recovered.Load() && took == aDay && status.Code(err) == codes.Canceled,
			"the handler ran: %v, something was recovered: %v, the client waits for %v, until it cancels: %v, want true, false, 24h", ran.Load(), recovered.Load(), took, err)
	}, lab.Lasts(2*aDay))
}

// server.go, chainStreamServerInterceptors, and clientconn.go,
// chainStreamClientInterceptors: the one that is not of the chain comes first.
func TestTheFirstOfAChainIsTheOutermost(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		var client, server []string
		say := func(trace *[]string, what string) { *trace = append(*trace, what) }
		serves := func(name string) grpc.StreamServerInterceptor {
			return onServer(func(stream grpc.ServerStream, next func(grpc.ServerStream) error) error {
				say(&server, name)
				defer say(&server, name+" ends")
				return next(stream)
			})
		}
		calls := func(name string) grpc.StreamClientInterceptor {
			return onClient(func(next next) (grpc.ClientStream, error) {
				say(&client, name)
				defer say(&client, name+" ends")
				return next()
			})
		}
		feeds, _ := connect(l, feed{chat: func(chatServer) error { say(&server, "handler"); return nil }},
			[]grpc.ServerOption{grpc.ChainStreamInterceptor(serves("2nd"), serves("3rd")), grpc.StreamInterceptor(serves("1st"))},
			grpc.WithChainStreamInterceptor(calls("b"), calls("c")), grpc.WithStreamInterceptor(calls("a")))
		chat, cancel := open(l, feeds)
		defer cancel()
		say(&client, "Chat returns")
		_, err := chat.Recv()
		synctest.Wait()
		got := strings.Join(slices.Concat(client, server), ", ")
		want := "a, b, c, c ends, b ends, a ends, Chat returns, 1st, 2nd, 3rd, handler, 3rd ends, 2nd ends, 1st ends"
		show(l, err == io.EOF && got == want, "client a to c, server 1st to 3rd: %s, want %s", got, want)
	})
}

// A line after the handler, written by the plain way and by defer.
func TestALogThatIsInsideOfTheRecoveryMissesThePanic(t *testing.T) {
	for _, tt := range []struct {
		what               string
		byDefer, outermost bool
		want               string
	}{
		{"outermost", false, true, "Internal"},
		{"inside of the recovery", false, false, "no line"},
		{"inside of the recovery, by defer", true, false, "OK"},
	} {
		lab.Run(t, func(l *lab.Lab) {
			said := "no line"
			log := onServer(func(stream grpc.ServerStream, next func(grpc.ServerStream) error) (err error) {
				if tt.byDefer {
					defer func() { said = status.Code(err).String() }()
					return next(stream)
				}
				err = next(stream)
				said = status.Code(err).String()
				return err
			})
			chain := []grpc.StreamServerInterceptor{recoverPanics(unreported), log}
			if tt.outermost {
				slices.Reverse(chain)
			}
			client, _ := connect(l, feed{chat: func(chatServer) error { panic("at your request") }}, []grpc.ServerOption{grpc.ChainStreamInterceptor(chain...)})
			chat, cancel := open(l, client)
			defer cancel()
			_, err := chat.Recv()
			synctest.Wait()
			show(l, status.Code(err) == codes.Internal && said == tt.want, "the client has %v; a log that is %s: %s, want %s", status.Code(err), tt.what, said, tt.want)
		})
	}
}

// sees is what one observer knows of a call.
type sees struct {
	calls                 atomic.Int32 // of counting
	mu                    sync.Mutex
	called                bool
	begun, ended, in, out int
	err                   error
}

func (s *sees) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.called:
		return "nothing"
	case s.ended == 0:
		return "no end"
	}
	return strings.TrimSuffix(fmt.Sprintf("%v, %d and %d", status.Code(s.err), s.in, s.out), ", 0 and 0")
}

func (s *sees) HandleRPC(_ context.Context, event stats.RPCStats) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.called = true
	switch event := event.(type) {
	case *stats.Begin:
		s.begun++
	case *stats.InPayload:
		s.in++
	case *stats.OutPayload:
		s.out++
	case *stats.End:
		s.ended++
		s.err = event.Error
	}
}

func (s *sees) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (s *sees) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (s *sees) HandleConn(context.Context, stats.ConnStats)                       {}

// counting is a stream that notes the calls, and those that return nil.
type counting struct {
	grpc.ServerStream
	*sees
}

func (c counting) note(event stats.RPCStats, call func(any) error, m any) error {
	c.calls.Add(1)
	err := call(m)
	if err == nil {
		c.HandleRPC(c.Context(), event)
	}
	return err
}

func (c counting) RecvMsg(m any) error { return c.note(&stats.InPayload{}, c.ServerStream.RecvMsg, m) }
func (c counting) SendMsg(m any) error { return c.note(&stats.OutPayload{}, c.ServerStream.SendMsg, m) }

// What an interceptor, a stats.Handler and the client know of the same call.
// The interceptor sees what the handler returns; processRPC in server.go makes
// a status of it afterwards (FromError, then FromContextError). RecvMsg and
// SendMsg write the status of their own failures (serverStream in stream.go).
func TestWhoSeesWhatOfACall(t *testing.T) {
	say := func(texts ...string) func(*lab.Lab, *grpc.ClientConn) error {
		return func(l *lab.Lab, conn *grpc.ClientConn) error {
			chat, cancel := open(l, feedv1.NewFeedServiceClient(conn))
			defer cancel()
			for _, text := range texts {
				chat.Send(&feedv1.ChatMessage{Text: text})
			}
			chat.CloseSend()
			return drain(chat)
		}
	}
	var table strings.Builder
	row := func(cells ...any) { fmt.Fprintf(&table, "%-40s  %-17s  %-17s  %s\n", cells...) }
	row("code, messages received and sent", "interceptor", "stats.Handler", "client")
	for _, tt := range []struct {
		what string
		chat func(chatServer) error
		call func(*lab.Lab, *grpc.ClientConn) error
		want string
	}{
		{"3 lines echoed, half-close, nil", echoes, say("1", "2", "3"), "OK, 3 and 3|OK, 3 and 3|OK"},
		{"the client has cancelled, Send fails", func(stream chatServer) error {
			<-stream.Context().Done()
			return stream.Send(&feedv1.ChatMessage{})
		}, func(l *lab.Lab, conn *grpc.ClientConn) error {
			chat, cancel := open(l, feedv1.NewFeedServiceClient(conn))
			time.AfterFunc(time.Minute, cancel)
			return drain(chat)
		}, "Canceled|Canceled|Canceled"},
		{"context.Canceled, bare", func(chatServer) error { return context.Canceled }, say(), "Unknown|Canceled|Canceled"},
		{"context.DeadlineExceeded, bare", func(chatServer) error { return context.DeadlineExceeded }, say(), "Unknown|DeadlineExceeded|DeadlineExceeded"},
		{"a line over 4 MiB, Recv's error dropped", func(stream chatServer) error { stream.Recv(); return nil }, say(strings.Repeat("x", 5<<20)), "OK|OK|ResourceExhausted"},
		{"a panic, recovered", func(chatServer) error { panic("at your request") }, say(), "Internal|Internal|Internal"},
		{"an unknown method", nil, func(l *lab.Lab, conn *grpc.ClientConn) error {
			stream, err := conn.NewStream(l.Context(), &grpc.StreamDesc{ServerStreams: true}, "/feed.v1.FeedService/Listen")
			must(l, err)
			return stream.RecvMsg(new(feedv1.Event))
		}, "nothing|no end|Unimplemented"},
		{"a unary call", nil, func(l *lab.Lab, conn *grpc.ClientConn) error {
			_, err := feedv1.NewFeedServiceClient(conn).Publish(l.Context(), &feedv1.PublishRequest{})
			return err
		}, "nothing|OK, 1 and 1|OK"},
	} {
		lab.Run(t, func(l *lab.Lab) {
			interceptor, handler := new(sees), new(sees)
			link := l.NewLink()
			link.Serve(feed{chat: tt.chat}, []grpc.ServerOption{grpc.StatsHandler(handler), grpc.ChainStreamInterceptor(onServer(func(stream grpc.ServerStream, next func(grpc.ServerStream) error) error {
				err := next(counting{stream, interceptor})
				interceptor.HandleRPC(stream.Context(), &stats.End{Error: err})
				return err
			}), recoverPanics(unreported))}...)
			code := codeOf(tt.call(l, link.Dial()))
			time.Sleep(time.Second) // or a handler has not returned
			got := fmt.Sprint(interceptor, "|", handler, "|", code)
			show(l, got == tt.want, "%s: interceptor, stats.Handler, client: %s, want %s", tt.what, got, tt.want)
			row(tt.what, interceptor, handler, code)
		})
	}
	lab.Golden(t, "sees.txt", table.String())
}

// A hooked stream tells of its end as some interceptors see it.
type hooked struct {
	grpc.ClientStream
	closed func()
	failed func(error) // RecvMsg, with io.EOF too
}

func (h hooked) CloseSend() error {
	h.closed()
	return h.ClientStream.CloseSend()
}

func (h hooked) RecvMsg(m any) error {
	err := h.ClientStream.RecvMsg(m)
	if err != nil {
		h.failed(err)
	}
	return err
}

// sayRecvMsg says how a stream went at the first error of RecvMsg.
func sayRecvMsg(say line) grpc.StreamClientInterceptor {
	return onClient(func(next next) (grpc.ClientStream, error) {
		stream, err := next()
		if err != nil {
			return nil, err
		}
		return hooked{stream, func() {}, func(err error) { say("", err, 0) }}, nil
	})
}

// sayBoth waits for an error, or for CloseSend and io.EOF, on a goroutine of
// its own, as otelgrpc did before open-telemetry/opentelemetry-go-contrib#836.
func sayBoth(quit <-chan struct{}, say line) grpc.StreamClientInterceptor {
	return onClient(func(next next) (grpc.ClientStream, error) {
		stream, err := next()
		if err != nil {
			return nil, err
		}
		closed, failed := make(chan bool, 9), make(chan error, 9)
		go func() {
			for waits := 2; waits > 0; waits-- {
				select {
				case <-closed:
				case err = <-failed:
					if err != io.EOF {
						waits = 0
					}
				case <-quit:
					return
				}
			}
			say("", err, 0)
		}()
		return hooked{stream, func() { closed <- true }, func(err error) { failed <- err }}, nil
	})
}

// A call is a client's part in a stream.
type call struct {
	*lab.Lab
	feedv1.FeedServiceClient
	link   *lab.Link
	ctx    context.Context
	cancel context.CancelFunc
}

func (c call) chat() chatClient {
	chat, err := c.Chat(c.ctx)
	must(c, err)
	return chat
}

// drain receives until the end.
func drain(chat chatClient) (err error) {
	for err == nil {
		_, err = chat.Recv()
	}
	return err
}

// Each stream ends after a minute. A client that leaves does not receive again.
// (*clientStream).finish in stream.go calls endOfClientStream, which calls
// OnFinish.
func TestWhatAClientsInterceptorsSayOfEachEnding(t *testing.T) {
	names := []string{"opening", "RecvMsg", "CloseSend and EOF", "OnFinish"}
	var table strings.Builder
	row := func(what string, cells []string) {
		fmt.Fprintf(&table, "%-40s  %-11s  %-11s  %-17s  %s\n", what, cells[0], cells[1], cells[2], cells[3])
	}
	row("", names)
	returns := func(err error) func(chatServer) error {
		return func(chatServer) error { time.Sleep(time.Minute); return err }
	}
	waits := func(stream chatServer) error { <-stream.Context().Done(); return nil }
	for _, tt := range []struct {
		what    string
		handler func(chatServer) error
		play    func(call)
		want    string
	}{
		{"handler returns nil, after CloseSend", returns(nil), func(c call) { chat := c.chat(); chat.CloseSend(); drain(chat) }, "OK 0s|OK 1m0s|OK 1m0s|OK 1m0s"},
		{"handler returns nil", returns(nil), func(c call) { drain(c.chat()) }, "OK 0s|OK 1m0s|no line|OK 1m0s"},
		{"handler fails", returns(status.Error(codes.Aborted, "")), func(c call) { drain(c.chat()) }, "OK 0s|Aborted 1m0s|Aborted 1m0s|Aborted 1m0s"},
		{"client cancels, and receives", waits, func(c call) { time.AfterFunc(time.Minute, c.cancel); drain(c.chat()) }, "OK 0s|Canceled 1m0s|Canceled 1m0s|Canceled 1m0s"},
		{"client cancels, and leaves", waits, func(c call) { c.chat(); time.Sleep(time.Minute); c.cancel() }, "OK 0s|no line|no line|Canceled 1m0s"},
		{"network is cut, and client receives", waits, func(c call) { time.AfterFunc(time.Minute, c.link.Cut); drain(c.chat()) }, "OK 0s|Unavailable 1m0s|Unavailable 1m0s|Unavailable 1m0s"},
		{"handler returns nil, and client has left", returns(nil), func(c call) { c.chat(); time.Sleep(aDay) }, "OK 0s|no line|no line|no line"},
		{"CloseAndRecv of a client stream", nil, func(c call) {
			stream, err := c.UploadEvents(c.ctx)
			must(c, err)
			time.Sleep(time.Minute)
			_, err = stream.CloseAndRecv()
			must(c, err)
		}, "OK 0s|no line|no line|OK 1m0s"},
		{"opening fails: network is cut", nil, func(c call) {
			c.link.Cut()
			time.Sleep(time.Second)
			c.Chat(c.ctx)
		}, "Unavailable 0s|no line|no line|Unavailable 0s"},
	} {
		lab.Run(t, func(l *lab.Lab) {
			var mu sync.Mutex
			var start time.Time
			quit, lines := make(chan struct{}), map[string]string{}
			defer close(quit)
			said := func(name string) line {
				return func(_ string, err error, _ time.Duration) {
					mu.Lock()
					defer mu.Unlock()
					lines[name] += fmt.Sprintf("%v %v", codeOf(err), time.Since(start).Round(time.Minute))
				}
			}
			client, link := connect(l, feed{chat: tt.handler}, nil, grpc.WithChainStreamInterceptor(sayOpening(said(names[0])), sayRecvMsg(said(names[1])), sayBoth(quit, said(names[2])), sayEnd(said(names[3]))))
			ctx, cancel := context.WithCancel(l.Context())
			defer cancel()
			start = time.Now()
			tt.play(call{l, client, link, ctx, cancel})
			time.Sleep(time.Second)
			synctest.Wait()
			var cells []string
			for _, name := range names {
				cells = append(cells, cmp.Or(lines[name], "no line"))
			}
			got := strings.Join(cells, "|")
			show(l, got == tt.want, "%s: %s, want %s", tt.what, got, tt.want)
			row(tt.what, strings.Split(strings.NewReplacer(" 0s", "", " 1m0s", "").Replace(got), "|"))
		}, lab.Lasts(2*aDay))
	}
	lab.Golden(t, "ends.txt", table.String())
}

// 100 chats that the server has ended, and whose client never called
// CloseSend. The RPCs and the handlers have ended.
func TestWaitingForCloseSendLeavesAGoroutineForEachStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		quit := make(chan struct{})
		client, _ := connect(l, feed{chat: func(chatServer) error { return nil }}, nil, grpc.WithStreamInterceptor(sayBoth(quit, func(string, error, time.Duration) {})))
		for range 100 {
			chat, err := client.Chat(l.Context())
			must(l, err)
			if _, err := chat.Recv(); err != io.EOF {
				l.Fatal(err)
			}
		}
		time.Sleep(aDay)
		left := l.Leaks()
		show(l, len(left) == 1 && strings.HasSuffix(left[0], "(100 times)"), "a day after 100 chats: %s, want 100 goroutines", strings.Join(left, "\n"))
		close(quit)
	}, lab.Lasts(2*aDay))
}

// retries is a service config: three attempts, if the code is Unavailable.
const retries = `{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 3, "initialBackoff": "1s",
	"maxBackoff": "1s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}`

// The first two attempts fail. (*clientStream).Context in stream.go commits the
// attempt that it finds, and http2_client.go, createHeaderFields, asks for the
// credentials of each.
func TestAnInterceptorSeesOneRPCOfThreeAttempts(t *testing.T) {
	for _, tt := range []struct {
		what     string
		use      func(grpc.ClientStream)
		attempts int
		want     codes.Code
	}{
		{"an interceptor that hands on the stream", func(grpc.ClientStream) {}, 3, codes.OK},
		{"one that calls its Context", func(stream grpc.ClientStream) { stream.Context() }, 1, codes.Unavailable},
	} {
		lab.Run(t, func(l *lab.Lab) {
			var opened, finished atomic.Int32
			tokensSeen, attempts := map[string]bool{}, new(sees)
			client, _ := connect(l, feed{chat: func(stream chatServer) error {
				tokensSeen[token(stream)] = true
				if len(tokensSeen) < 3 {
					return status.Error(codes.Unavailable, "not yet")
				}
				return echoes(stream)
			}}, nil, grpc.WithDefaultServiceConfig(retries), grpc.WithPerRPCCredentials(tokens{time.Hour}), grpc.WithStatsHandler(attempts),
				grpc.WithStreamInterceptor(onClient(func(next next) (grpc.ClientStream, error) {
					opened.Add(1)
					stream, err := next(grpc.OnFinish(func(error) { finished.Add(1) }))
					must(l, err)
					tt.use(stream)
					return stream, nil
				})))
			chat, cancel := open(l, client)
			defer cancel()
			_, err := echo(chat, "hello")
			chat.CloseSend()
			chat.Recv()
			synctest.Wait()
			got, n := []int{int(opened.Load()), int(finished.Load()), attempts.begun, attempts.ended, len(tokensSeen)}, tt.attempts
			show(l, status.Code(err) == tt.want && slices.Equal(got, []int{1, 1, n, n, n}),
				"%s: %v; interceptor, OnFinish, stats.Begin, stats.End, tokens that the server has seen: %v, want %v and 1, 1, then %d", tt.what, status.Code(err), got, tt.want, n)
		})
	}
}

// Context() of the wrapper is a method that RecvMsg and SendMsg of the stream
// inside do not call: they wait for their own context (transport.go). The
// client sends nothing, and receives after a day: until then a full stream keeps
// its status back.
func TestAReplacedContextReachesNeitherRecvNorSend(t *testing.T) {
	ends := map[time.Duration]string{
		time.Hour / 2: "Canceled after 30m0s, the client has Canceled",
		time.Hour:     "Unauthenticated after 1h0m0s, the client has Unauthenticated",
		aDay:          "Unauthenticated after 24h0m0s, the client has Canceled",
	}
	for _, wait := range []struct {
		what     string
		chat     func(chatServer) error
		replaced time.Duration
	}{
		{"in Recv", echoes, aDay},
		{"in Send", func(stream chatServer) (err error) {
			for err == nil {
				err = stream.Send(&feedv1.ChatMessage{Text: strings.Repeat("x", 1024)})
			}
			return err
		}, aDay},
		{"for its context", func(stream chatServer) error {
			<-stream.Context().Done()
			return status.FromContextError(stream.Context().Err()).Err()
		}, time.Hour},
	} {
		for _, way := range []struct {
			name          string
			interceptor   grpc.StreamServerInterceptor
			cancels, want time.Duration
		}{{"replaceContext", replaceContext, aDay, wait.replaced}, {"endAtExpiry", endAtExpiry, 2 * aDay, time.Hour}, {"endAtExpiry", endAtExpiry, time.Hour / 2, time.Hour / 2}} {
			lab.Run(t, func(l *lab.Lab) {
				var got string
				start := time.Now()
				client, _ := connect(l, feed{chat: wait.chat}, []grpc.ServerOption{grpc.ChainStreamInterceptor(onServer(func(stream grpc.ServerStream, next func(grpc.ServerStream) error) error {
					err := next(stream)
					got = fmt.Sprintf("%v after %v", status.Code(err), time.Since(start).Round(time.Second))
					return err
				}), way.interceptor)}, grpc.WithPerRPCCredentials(tokens{time.Hour}))
				chat, cancel := open(l, client)
				time.AfterFunc(way.cancels, cancel)
				time.Sleep(aDay + time.Second)
				synctest.Wait()
				got += fmt.Sprintf(", the client has %v", status.Code(drain(chat)))
				cancel()
				show(l, got == ends[way.want], "%s, a handler that waits %s, a client that cancels after %v: it returns %s, want %s", way.name, wait.what, way.cancels, got, ends[way.want])
			}, lab.Lasts(2*aDay))
		}
	}
}

// A handler that goes on. The inner stream counts the calls that reach it.
func TestACallAfterExpiryDoesNotReachTheStream(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		inner, expired := new(sees), 0
		client, _ := connect(l, feed{chat: func(stream chatServer) error {
			for range 4 {
				if _, err := stream.Recv(); err == errExpired {
					expired++
				}
			}
			if stream.Send(&feedv1.ChatMessage{}) == errExpired {
				expired++
			}
			return nil
		}}, []grpc.ServerOption{grpc.ChainStreamInterceptor(onServer(func(stream grpc.ServerStream, next func(grpc.ServerStream) error) error {
			return next(counting{stream, inner})
		}), endAtExpiry)}, grpc.WithPerRPCCredentials(tokens{time.Hour}))
		chat, cancel := open(l, client)
		defer cancel()
		_, err := chat.Recv()
		synctest.Wait()
		show(l, err == io.EOF && expired == 5 && inner.calls.Load() == 1, "5 calls, the first an hour before the token expires: %d return errExpired, %d reach the stream, want 5 and 1", expired, inner.calls.Load())
	}, lab.Lasts(2*aDay))
}

func token(stream chatServer) string {
	md, _ := metadata.FromIncomingContext(stream.Context())
	return strings.Join(md.Get("authorization"), "")
}

// The way to the server takes 5 ms. 0 stands for no token at all.
func TestAStreamWithoutAValidTokenReachesNoHandler(t *testing.T) {
	for _, life := range []time.Duration{0, -time.Second, time.Millisecond, time.Minute} {
		want := codes.Unauthenticated
		if life == time.Minute {
			want = codes.OK
		}
		lab.Run(t, func(l *lab.Lab) {
			var dial []grpc.DialOption
			if life != 0 {
				dial = append(dial, grpc.WithPerRPCCredentials(tokens{life}))
			}
			ran := false
			client, _ := connect(l, feed{chat: func(chatServer) error { ran = true; return nil }}, []grpc.ServerOption{grpc.StreamInterceptor(endAtExpiry)}, dial...)
			chat, cancel := open(l, client)
			defer cancel()
			_, err := chat.Recv()
			synctest.Wait()
			show(l, codeOf(err) == want && ran == (want == codes.OK), "a token for %v: %v, the handler has run: %v, want %v", life, codeOf(err), ran, want)
		})
	}
}

// A client that reopens its stream whenever its token has expired.
func TestAReopenedStreamBringsAFreshToken(t *testing.T) {
	for _, tt := range []struct {
		what  string
		serve []grpc.ServerOption
		want  int
	}{{"nobody asks again", nil, 1}, {"endAtExpiry", []grpc.ServerOption{grpc.StreamInterceptor(endAtExpiry)}, 25}} {
		lab.Run(t, func(l *lab.Lab) {
			opened, seen := 0, map[string]bool{}
			client, _ := connect(l, feed{chat: func(stream chatServer) error { seen[token(stream)] = true; return echoes(stream) }}, tt.serve, grpc.WithPerRPCCredentials(tokens{time.Hour}))
			ctx, cancel := context.WithTimeout(l.Context(), aDay+time.Minute)
			defer cancel()
			for ctx.Err() == nil {
				chat, err := client.Chat(ctx)
				must(l, err)
				opened++
				if _, err = chat.Recv(); status.Code(err) != codes.Unauthenticated && ctx.Err() == nil {
					l.Fatal(err)
				}
			}
			time.Sleep(time.Second)
			synctest.Wait()
			show(l, opened == tt.want && len(seen) == tt.want, "tokens of an hour, %s: in a day and a minute %d streams, %d tokens that the server has seen, want %d", tt.what, opened, len(seen), tt.want)
		}, lab.Lasts(2*aDay))
	}
}

// The recording that the README shows.
func TestTheRecordingIsFresh(t *testing.T) {
	var ladders []string
	for _, way := range []struct {
		name        string
		interceptor grpc.StreamServerInterceptor
	}{{"replaceContext", replaceContext}, {"endAtExpiry", endAtExpiry}} {
		lab.Run(t, func(l *lab.Lab) {
			link := l.NewLink()
			link.Serve(feed{chat: func(stream chatServer) error {
				link.Note(lab.Server, "%s: the handler is in Recv", way.name)
				return each(stream, func(msg *feedv1.ChatMessage) error {
					time.Sleep(time.Millisecond)
					return stream.Send(msg)
				})
			}}, grpc.StreamInterceptor(way.interceptor))
			client := feedv1.NewFeedServiceClient(link.Dial(grpc.WithPerRPCCredentials(tokens{time.Minute})))
			chat, cancel := open(l, client)
			defer cancel()
			time.AfterFunc(time.Minute, func() { link.Note(lab.Server, "the token expires") })
			if way.name == "replaceContext" {
				time.Sleep(2 * time.Minute)
				_, err := echo(chat, "a minute later")
				must(l, err)
			} else {
				_, err := chat.Recv()
				link.Note(lab.Client, "Recv returns %v", status.Code(err))
				time.Sleep(time.Millisecond)
				_, cancel := open(l, client)
				defer cancel()
				time.Sleep(time.Millisecond)
			}
			ladders = append(ladders, link.Ladder())
		}, lab.Lasts(2*time.Hour))
	}
	_, second, _ := strings.Cut(ladders[1], "\n")
	lab.Golden(t, "wire.txt", ladders[0]+"\n"+second)
}
