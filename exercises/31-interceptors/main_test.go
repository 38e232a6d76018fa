package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

const soon = time.Second

type chatClient = grpc.BidiStreamingClient[feedv1.ChatMessage, feedv1.ChatMessage]

// A bookLine is a line of the log: of each attribute its type and its text.
// One in a group is not there.
type bookLine map[string][2]string

func (l bookLine) text(key string) string {
	if l[key][0] == "" {
		return "missing"
	}
	return l[key][1]
}

// A logBook is what a log has written. It drops what is below Info, as most do.
type logBook struct {
	b     *bench
	lines []bookLine
}

func (k *logBook) log() *slog.Logger {
	return slog.New(slog.NewJSONHandler(k, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		return slog.Any(a.Key, [2]string{fmt.Sprintf("%T", a.Value.Any()), a.Value.String()})
	}}))
}

// Write is called once for a line.
func (k *logBook) Write(text []byte) (int, error) {
	line := bookLine{}
	json.Unmarshal(text, &line) // skips groups
	time.Sleep(k.b.slow)
	k.b.mu.Lock()
	defer k.b.mu.Unlock()
	k.b.early = k.b.early || k.b.running > 0
	k.lines = append(k.lines, line)
	return len(text), nil
}

func (k *logBook) take() []bookLine {
	k.b.mu.Lock()
	defer k.b.mu.Unlock()
	lines := k.lines
	k.lines = nil
	return lines
}

// A bench is a server with the interceptor, and one connection to it.
type bench struct {
	*lab.Lab
	feedv1.UnimplementedFeedServiceServer
	book   *logBook
	link   *lab.Link
	client feedv1.FeedServiceClient
	chat   func(chatServer) error
	slow   time.Duration // what it takes to write a line
	fault  error         // what RecvMsg and SendMsg return, if set
	gates  string        // the call that returns when gate is closed: what it does, it has done
	gate   chan struct{}

	mu      sync.Mutex
	running int          // handlers
	early   bool         // a line came while a handler ran
	last    *benchStream // the one that began last
}

func (b *bench) Chat(stream chatServer) error { return b.chat(stream) }

func (b *bench) Watch(_ *feedv1.WatchRequest, stream grpc.ServerStreamingServer[feedv1.Event]) error {
	for range 5 {
		stream.Send(&feedv1.Event{})
	}
	return status.Error(codes.Aborted, "")
}

func (b *bench) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	for {
		if _, err := stream.Recv(); err != nil { // io.EOF
			return stream.SendAndClose(&feedv1.UploadResult{})
		}
	}
}

// onBench runs body with a bench.
func onBench(t *testing.T, body func(*bench)) {
	t.Helper()
	if t.Failed() {
		return
	}
	lab.Run(t, func(l *lab.Lab) {
		b := &bench{Lab: l, link: l.NewLink(), chat: echoLines}
		b.book = &logBook{b: b}
		b.link.Serve(b, grpc.ChainStreamInterceptor(b.around, streamInterceptor(b.book.log()), b.within))
		b.client = feedv1.NewFeedServiceClient(b.link.Dial())
		body(b)
	})
}

// A benchStream is the stream that the interceptor is given, and what became of it.
type benchStream struct {
	grpc.ServerStream
	b              *bench
	method         string
	received, sent atomic.Int64
	took           time.Duration // the handler
	err            error         // of the handler
	lines          int           // in the book when the interceptor returned
}

type benchUser struct{}

func (s *benchStream) Context() context.Context {
	return context.WithValue(s.ServerStream.Context(), benchUser{}, "alice")
}

func (s *benchStream) RecvMsg(m any) error {
	return s.do("Recv", &s.received, s.ServerStream.RecvMsg, m)
}
func (s *benchStream) SendMsg(m any) error { return s.do("Send", &s.sent, s.ServerStream.SendMsg, m) }

// do takes no lock, which would hide from -race counters that have none.
func (s *benchStream) do(call string, n *atomic.Int64, f func(any) error, m any) error {
	if s.b.fault != nil {
		return s.b.fault
	}
	err := f(m)
	if s.b.gates == call {
		<-s.b.gate
	}
	if err == nil {
		n.Add(1)
	}
	return err
}

// around is an interceptor around the one under test.
func (b *bench) around(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	s := &benchStream{ServerStream: stream, b: b, method: info.FullMethod}
	b.mu.Lock()
	b.last = s
	b.mu.Unlock()
	err := handler(srv, s)
	b.mu.Lock()
	defer b.mu.Unlock()
	s.lines = len(b.book.lines)
	return err
}

// within is an interceptor between the one under test and the handler.
func (b *bench) within(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	b.mu.Lock()
	s, start := b.last, time.Now()
	b.running++
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.running--
		s.took, s.err = time.Since(start), err
	}()
	return handler(srv, stream)
}

func echoLines(stream chatServer) error {
	for {
		msg, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = stream.Send(msg)
		}
		if err != nil {
			return err
		}
	}
}

// at3rdLine is a handler that echoes two lines and ends at the third.
func at3rdLine(end func() error) func(chatServer) error {
	return func(stream chatServer) error {
		for range 2 {
			msg, err := stream.Recv()
			if err != nil {
				return err
			}
			stream.Send(msg)
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
		return end()
	}
}

// atTheEnd is a handler that waits for the end of its stream's context.
func atTheEnd(end func(err error) error) func(chatServer) error {
	return func(stream chatServer) error {
		<-stream.Context().Done()
		return end(stream.Context().Err())
	}
}

// play sends n lines, brings about an end a minute later, if it is not the
// handler that ends the stream, and returns what the client got: nil is io.EOF.
func (b *bench) play(n int, end string) (header, trailer metadata.MD, err error) {
	b.Helper()
	b.Call("a stream of a server with streamInterceptor", 5*time.Minute, func() {
		limit := time.Hour
		if end == "deadline" {
			limit = time.Minute + time.Nanosecond // not a whole microsecond: the server's own timer comes later
		}
		ctx, cancel := context.WithTimeout(b.Context(), limit)
		defer cancel()
		var stream chatClient
		if stream, err = b.client.Chat(ctx); err != nil {
			return
		}
		for range n {
			stream.Send(&feedv1.ChatMessage{Text: "hello"})
		}
		if f := map[string]func(){"half-close": func() { stream.CloseSend() }, "cancel": cancel, "cut": b.link.Cut}[end]; f != nil {
			time.AfterFunc(time.Minute, f)
		}
		for err == nil {
			_, err = stream.Recv()
		}
		header, _ = stream.Header()
		trailer = stream.Trailer()
	})
	time.Sleep(soon)
	if err == io.EOF {
		err = nil
	}
	return header, trailer, err
}

// line returns the one line that there is of the last stream.
func (b *bench) line(what string) (bookLine, *benchStream) {
	b.Helper()
	lines := b.book.take()
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case len(lines) != 1:
		b.Fatalf("%s: %v later the log has %d lines of level Info or above, want one", what, soon, len(lines))
	case b.early:
		b.Fatalf("%s: the log has its line (code %s) while the handler still ran, want it when the handler has returned", what, lines[0].text("code"))
	case b.last.lines != 1:
		b.Fatalf("%s: the function of streamInterceptor returned before the line was written", what)
	}
	return lines[0], b.last
}

// want compares the line of the last stream with what the stream had, and
// returns what its handler returned.
func (b *bench) want(what, code string) (bookLine, error) {
	b.Helper()
	line, s := b.line(what)
	if kind := line["duration"][0]; kind != "time.Duration" && kind != "" {
		b.Fatalf("%s: in its line duration is %s, a %s, want a time.Duration", what, line.text("duration"), kind)
	}
	for _, attr := range [][2]string{
		{"method", s.method}, {"code", code}, {"duration", s.took.String()},
		{"received", fmt.Sprint(s.received.Load())}, {"sent", fmt.Sprint(s.sent.Load())},
	} {
		if got := line.text(attr[0]); got != attr[1] {
			b.Fatalf("%s: in its line %s is %s, want %s", what, attr[0], got, attr[1])
		}
	}
	return line, s.err
}

// outOfRange panics as people's code does.
func outOfRange() string { return strings.Fields("")[2] }

func TestAPanicIsInternalToItsClient(t *testing.T) {
	onBench(t, func(b *bench) {
		runtimeError := func() (r any) {
			defer func() { r = recover() }()
			return outOfRange()
		}()
		for _, value := range []any{"secret", errors.New("secret"), status.Error(codes.NotFound, "secret"),
			struct{ s string }{"secret"}, context.Canceled, io.EOF, runtimeError} {
			b.chat = at3rdLine(func() error { panic(value) })
			header, trailer, err := b.play(3, "")
			what := fmt.Sprintf("a handler panicked with a value of type %T", value)
			if err == nil {
				b.Fatalf("%s, and its client has a good end, want Internal", what)
			}
			if status.Code(err) != codes.Internal {
				b.Fatalf("%s, and its client has %v, want Internal", what, err)
			}
			got := fmt.Sprintf("%v, details %v, header %v, trailer %v", err, status.Convert(err).Details(),
				map[string][]string(header), map[string][]string(trailer)) // an MD prints as redacted
			for _, text := range []string{"secret", fmt.Sprint(value), "goroutine ", ".go:"} {
				if strings.Contains(got, text) {
					b.Fatalf("%s, and its client has its text, or its stack: %s", what, got)
				}
			}
		}
	})
}

func TestAPanicEndsItsOwnStreamOnly(t *testing.T) {
	onBench(t, func(b *bench) {
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		other, err := b.client.Chat(ctx)
		for i := range 2 {
			if err == nil {
				other.Send(&feedv1.ChatMessage{Text: "still there?"})
				_, err = other.Recv()
			}
			if err != nil {
				b.Fatalf("%d handlers panicked, and another stream of the same server ended with %v, want it to go on", i, err)
			}
			b.chat = func(chatServer) error { panic("at once") }
			b.play(1, "")
		}
		cancel()
		other.Recv()
	})
}

func TestTheLineComesAtTheEnd(t *testing.T) {
	onBench(t, func(b *bench) {
		b.chat = at3rdLine(func() error {
			time.Sleep(time.Minute)
			if n := len(b.book.take()); n > 0 {
				b.Errorf("a stream is open, its handler runs, and the log has %d lines of it, want none before the end", n)
			}
			return nil
		})
		b.play(3, "")
		b.line("a stream of a minute has ended")
		b.slow = soon / 2
		b.play(3, "")
		b.line(fmt.Sprintf("a stream has ended, and the log takes %v for a line", b.slow))
	})
}

func TestAPanicHasItsLine(t *testing.T) {
	onBench(t, func(b *bench) {
		for _, tt := range []struct {
			text, culprit string
			end           func() error
		}{
			{"the room is gone", "TestAPanicHasItsLine", func() error { panic("the room is gone") }},
			{"the room is gone", "TestAPanicHasItsLine", func() error { panic(errors.New("the room is gone")) }},
			{"runtime error: index out of range [2] with length 0", "outOfRange", func() error { return errors.New(outOfRange()) }},
		} {
			b.chat = at3rdLine(func() error { time.Sleep(soon + time.Nanosecond); return tt.end() })
			b.play(3, "")
			what := fmt.Sprintf("a handler panicked after 3 lines and 2 answers with %q", tt.text)
			line, _ := b.want(what, "Internal")
			if got := line.text("panic"); got != tt.text {
				b.Fatalf("%s: in its line panic is %s", what, got)
			}
			if kind := line["stack"][0]; kind != "string" && kind != "" {
				b.Fatalf("%s: in its line stack is a %s, want a string", what, kind)
			}
			if stack := line.text("stack"); !strings.Contains(stack, tt.culprit) {
				b.Fatalf("%s: in its line stack does not name the function that panicked: %.100q", what, stack)
			}
		}
	})
}

func TestNoCallWaitsForAnother(t *testing.T) {
	for _, inside := range []string{"Recv", "Send"} {
		onBench(t, func(b *bench) {
			b.gates, b.gate = inside, make(chan struct{})
			verdict := make(chan string, 1)
			b.chat = func(stream chatServer) error {
				time.Sleep(time.Millisecond) // the client's line is there
				first, second, other := func() { stream.Recv() }, func() { stream.Send(&feedv1.ChatMessage{}) }, "Send"
				if inside == "Send" {
					first, second, other = second, first, "Recv"
				}
				var called atomic.Bool
				go first()
				b.Settle()
				go func() {
					b.Settle()
					why := ""
					if !called.Load() {
						why = other + ", on another goroutine, waits for it"
					} else if len(b.book.take()) == 0 {
						why = "the handler has returned, and your line waits for it"
					}
					verdict <- why
					close(b.gate)
				}()
				second()
				called.Store(true)
				return nil
			}
			b.play(1, "")
			if why := <-verdict; why != "" {
				b.Fatalf("a goroutine of a handler is in %s: %s, want no wait", inside, why)
			}
		})
	}
	onBench(t, func(b *bench) { // here -race finds counters without a lock
		b.chat = func(stream chatServer) error {
			go func() {
				for err := error(nil); err == nil; {
					_, err = stream.Recv()
				}
			}()
			time.Sleep(time.Minute)
			return nil
		}
		b.play(3, "")
		b.want("the handler returned, and a goroutine of it that had received 3 lines was still in Recv", "OK")
	})
}

// The code is the one that gRPC makes of what the handler returns.
func TestEachEndingHasItsCode(t *testing.T) {
	returns := func(err error) func(chatServer) error { return at3rdLine(func() error { return err }) }
	as := func(err error) error { return err }
	notFound := status.Error(codes.NotFound, "no such room")
	detailed, err := status.New(codes.FailedPrecondition, "the room is closed").WithDetails(&feedv1.Ack{Id: "7"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		chat func(chatServer) error
		end  string
		code string
	}{
		{"the client half-closed after 3 lines, the handler returned nil", echoLines, "half-close", "OK"},
		{"the handler returned the status NotFound", returns(notFound), "", "NotFound"},
		{"the handler returned a status with details", returns(detailed.Err()), "", "FailedPrecondition"},
		{"the handler returned a status wrapped with %w", returns(fmt.Errorf("enter: %w", notFound)), "", "NotFound"},
		{"the handler returned a status joined with context.Canceled", returns(errors.Join(notFound, context.Canceled)), "", "NotFound"},
		{"the handler returned an error without a status", returns(errors.New("the disk is full")), "", "Unknown"},
		{"the handler returned io.EOF", returns(io.EOF), "", "Unknown"},
		{"the client cancelled, the handler returned half a second later", atTheEnd(func(err error) error { time.Sleep(soon / 2); return err }), "cancel", "Canceled"},
		{"the client cancelled, the handler returned its context's error", atTheEnd(as), "cancel", "Canceled"},
		{"the client cancelled, the handler returned its context's error wrapped with %w", atTheEnd(func(err error) error { return fmt.Errorf("the room: %w", err) }), "cancel", "Canceled"},
		{"the client cancelled, the handler returned the error of Recv", echoLines, "cancel", "Canceled"},
		{"the client cancelled, the handler returned nil", atTheEnd(func(error) error { return nil }), "cancel", "OK"},
		{"the client cancelled, the handler returned the status NotFound", atTheEnd(func(error) error { return notFound }), "cancel", "NotFound"},
		{"a deadline of the handler's own passed, and it returned its context's error", func(stream chatServer) error {
			ctx, cancel := context.WithTimeout(stream.Context(), time.Minute)
			defer cancel()
			<-ctx.Done()
			return ctx.Err()
		}, "", "DeadlineExceeded"},
		{"the network was cut, the handler returned the error of Recv", echoLines, "cut", "Canceled"},
		{"the client's deadline passed, the handler returned the error of Recv", echoLines, "deadline", "Canceled"},
	} {
		onBench(t, func(b *bench) {
			b.chat = tt.chat
			_, _, end := b.play(3, tt.end)
			_, err := b.want(tt.what, tt.code)
			if tt.end != "" {
				return // the client has an end of its own
			}
			want, ok := status.FromError(err)
			if !ok {
				want = status.FromContextError(err)
			}
			got := status.Convert(end)
			if got.Code() != want.Code() || got.Message() != want.Message() {
				b.Fatalf("%s, and the client has %v, want %v: what the handler returned", tt.what, got, want)
			}
			if n, all := len(got.Details()), len(want.Details()); n != all {
				b.Fatalf("%s, and the client has %v with %d details of %d: what the handler returned lost %d on the way", tt.what, got, n, all, all-n)
			}
		})
	}
}

func TestWhatFailsIsNoMessage(t *testing.T) {
	onBench(t, func(b *bench) {
		for _, fault := range []error{io.EOF, context.Canceled, status.Error(codes.Canceled, ""), status.Error(codes.ResourceExhausted, ""), errors.New("a fault")} {
			b.chat = func(stream chatServer) error {
				msg, _ := stream.Recv()
				stream.Send(msg)
				b.fault = fault
				_, received := stream.Recv()
				sent := stream.Send(msg)
				b.fault = nil
				if received != fault || sent != fault {
					b.Errorf("RecvMsg and SendMsg of the stream failed with %v, and the handler has %v of Recv and %v of Send, want the very same", fault, received, sent)
				}
				return nil
			}
			b.play(1, "")
			b.want(fmt.Sprintf("a line was echoed, then Recv and Send failed with %v", fault), "OK")
		}
	})
}

func TestTheOtherShapesAreCountedToo(t *testing.T) {
	onBench(t, func(b *bench) {
		watch, err := b.client.Watch(b.Context(), &feedv1.WatchRequest{})
		for err == nil {
			_, err = watch.Recv()
		}
		time.Sleep(soon)
		b.want("a Watch with one request and 5 events", "Aborted")
		upload, err := b.client.UploadEvents(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for range 4 {
			upload.Send(&feedv1.Event{})
		}
		if _, err = upload.CloseAndRecv(); err != nil {
			b.Fatalf("CloseAndRecv returned %v, want nil", err)
		}
		time.Sleep(soon)
		b.want("an upload of 4 events with one receipt", "OK")
	})
}

func TestEachStreamHasItsOwnCounts(t *testing.T) {
	onBench(t, func(b *bench) {
		const streams = 20
		var all sync.WaitGroup
		for n := range streams {
			all.Go(func() {
				stream, err := b.client.Chat(b.Context())
				if err != nil {
					return
				}
				for range n {
					time.Sleep(soon)
					stream.Send(&feedv1.ChatMessage{})
				}
				stream.CloseSend()
				for err == nil {
					_, err = stream.Recv()
				}
			})
		}
		all.Wait()
		time.Sleep(soon)
		lines := b.book.take() // in the order of their ends
		if len(lines) != streams {
			b.Fatalf("%d streams at once: the log has %d lines, want %d", streams, len(lines), streams)
		}
		for n, line := range lines {
			if received, sent := line.text("received"), line.text("sent"); received != fmt.Sprint(n) || sent != received {
				b.Fatalf("%d streams at once, in which 0 to %d lines were echoed: in the line of the one with %d received is %s and sent %s", streams, streams-1, n, received, sent)
			}
		}
	})
	onBench(t, func(b *bench) {
		books := []*logBook{{b: b}, {b: b}}
		link := b.NewLink()
		link.Serve(b, grpc.ChainStreamInterceptor(streamInterceptor(books[0].log()), streamInterceptor(books[1].log())))
		b.client = feedv1.NewFeedServiceClient(link.Dial())
		b.play(3, "half-close")
		for i, book := range books {
			what := fmt.Sprintf("two interceptors in one chain with a log each, and 3 lines were echoed: log %d of 2", i+1)
			lines := book.take()
			if len(lines) != 1 {
				b.Fatalf("%s has %d lines, want one", what, len(lines))
			}
			if received, sent := lines[0].text("received"), lines[0].text("sent"); received != "3" || sent != "3" {
				b.Fatalf("%s says received %s and sent %s, want 3 and 3", what, received, sent)
			}
		}
	})
}

func TestTheHandlerHasTheWholeStream(t *testing.T) {
	onBench(t, func(b *bench) {
		var who any
		b.chat = func(stream chatServer) error {
			who = stream.Context().Value(benchUser{})
			stream.SetHeader(metadata.Pairs("room", "1"))
			stream.SendHeader(metadata.Pairs("floor", "2"))
			stream.SetTrailer(metadata.Pairs("last", "3"))
			return nil
		}
		header, trailer, _ := b.play(0, "")
		if got := fmt.Sprint(who, header["room"], header["floor"], trailer["last"]); got != "alice[1] [2] [3]" {
			b.Fatalf("a handler asked its context for a value of another interceptor, and set two headers and a trailer: what came is %q, want alice, 1, 2 and 3", got)
		}
	})
}
