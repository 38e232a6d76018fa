package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	feedv1 "example.com/mygrpc/gen/feed/v1"
	"example.com/mygrpc/internal/lab"
)

// A stage is an open stream with both its ends in the hands of the test.
type stage struct {
	scene
	*lab.Lab
	link    *lab.Link
	client  feedv1.FeedServiceClient
	ctx     context.Context // that the stream is opened with
	handler chatServer
	answer  chan error // what the handler returns
}

// A withContext makes the context that a stream is opened with.
type withContext func(context.Context) (context.Context, context.CancelFunc)

func within(d time.Duration) withContext {
	return func(ctx context.Context) (context.Context, context.CancelFunc) { return context.WithTimeout(ctx, d) }
}

// open opens a stream whose handler waits for its answer, or for the end of
// its context. The client must call s.cancel.
func open(l *lab.Lab, with withContext, opts ...grpc.ServerOption) *stage {
	l.Helper()
	s := &stage{Lab: l, link: l.NewLink(), answer: make(chan error)}
	opened := make(chan chatServer, 1)
	s.srv = s.link.Serve(&server{chat: func(stream chatServer) error {
		opened <- stream
		select {
		case err := <-s.answer:
			return err
		case <-stream.Context().Done():
			time.Sleep(time.Millisecond) // or its status races with the reset that a deadline makes
			return stream.Context().Err()
		}
	}}, opts...)
	s.conn = s.link.Dial()
	s.client = feedv1.NewFeedServiceClient(s.conn)
	s.ctx, s.cancel = with(l.Context())
	stream, err := s.client.Chat(s.ctx)
	if err != nil {
		l.Fatal(err)
	}
	s.stream, s.handler = stream, <-opened
	return s
}

// during returns what ended wait, which waits while end runs.
func during(wait func() error, end func()) error {
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	synctest.Wait()
	end()
	return <-ended
}

// recv returns what ended the client's stream, which waits in Recv while end
// runs.
func (s *stage) recv(end func()) error {
	return during(func() error { _, err := s.stream.Recv(); return err }, end)
}

// forms returns err as a caller may have it: as it came, and wrapped, in words
// that are no news of the stream.
func forms(err error) []error {
	if err == nil {
		return []error{nil}
	}
	return []error{err,
		fmt.Errorf("chat: %w", err),
		fmt.Errorf("after EOF, context canceled, grpc: the client connection is closing: %w", err)}
}

// ask asks the function of that name twice for each form of err. about says
// what else the message is to tell.
func ask(l *lab.Lab, name, what string, err error, want ending, function func(error) ending, about string) {
	l.Helper()
	for _, err := range forms(err) {
		text := "<nil>"
		if err != nil {
			text = fmt.Sprintf("%q", err.Error())
		}
		for _, says := range []string{"says", fmt.Sprintf("said %v, and asked again with the same error it says", want)} {
			var got ending
			l.Call(name, time.Second, func() { got = function(err) })
			if got != want {
				l.Fatalf("%s, and %s %s %v, want %v\n err is %s%s", what, name, says, got, want, text, about)
			}
		}
	}
}

// wantClient asks clientEnding a second after the event.
func wantClient(l *lab.Lab, what string, ctx context.Context, err error, want ending) {
	l.Helper()
	time.Sleep(time.Second)
	askClient(l, what, ctx, err, want)
}

func askClient(l *lab.Lab, what string, ctx context.Context, err error, want ending) {
	l.Helper()
	ask(l, "clientEnding", what, err, want, func(err error) ending { return clientEnding(ctx, err) },
		fmt.Sprintf("\n ctx.Err() is %v", ctx.Err()))
}

func wantHandler(l *lab.Lab, what string, err error, want ending) {
	l.Helper()
	ask(l, "handlerEnding", what, err, want, handlerEnding, "")
}

// ended checks a stream that the server ends with answer, while the client's
// context lives. Whoever asks later, when the context has ended too, hears
// the same, unless nobody can tell any more.
func ended(t *testing.T, what string, answer error, want ending) {
	t.Helper()
	code := status.Code(answer)
	if answer != nil && code == codes.Unknown {
		code = status.FromContextError(answer).Code()
	}
	lab.Run(t, func(l *lab.Lab) {
		s := open(l, within(time.Minute))
		defer s.cancel()
		err := s.recv(func() { s.answer <- answer })
		wantClient(l, what+" while the context lived", s.ctx, err, want)
		if time.Sleep(time.Hour); code != codes.DeadlineExceeded {
			wantClient(l, what+" before the deadline of the context passed", s.ctx, err, want)
		}
	}, lab.Lasts(2*time.Hour))
	lab.Run(t, func(l *lab.Lab) {
		s := open(l, context.WithCancel)
		err := s.recv(func() { s.answer <- answer })
		if s.cancel(); code != codes.Canceled {
			wantClient(l, what+" before the context was cancelled", s.ctx, err, want)
		}
	})
}

func TestAGoodEndIsCompleted(t *testing.T) {
	ended(t, "the server returned nil", nil, Completed)
}

// upload takes one event and sends a receipt.
type upload struct {
	feedv1.UnimplementedFeedServiceServer
}

func (upload) UploadEvents(stream grpc.ClientStreamingServer[feedv1.Event, feedv1.UploadResult]) error {
	stream.Recv()
	return stream.SendAndClose(&feedv1.UploadResult{Received: 1})
}

func TestAReceiptIsAGoodEnd(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		client, _ := l.Connect(upload{})
		ctx, cancel := context.WithCancel(l.Context())
		defer cancel()
		stream, err := client.UploadEvents(ctx)
		if err != nil {
			l.Fatal(err)
		}
		stream.Send(&feedv1.Event{Id: "1"})
		if _, err = stream.CloseAndRecv(); err != nil {
			l.Fatal(err)
		}
		wantClient(l, "CloseAndRecv returned the receipt and no error", ctx, err, Completed)
		cancel()
		wantClient(l, "CloseAndRecv returned the receipt and no error before the context was cancelled", ctx, err, Completed)
	})
}

// here checks streams that the caller's own context ends: one that waits in
// Recv, one that is opened when the context has ended, and one that waits for
// a connection, of which gRPC then says more than that the context ended.
func here(t *testing.T, what string, with withContext, end func(*stage), want ending) {
	t.Helper()
	lab.Run(t, func(l *lab.Lab) {
		s := open(l, with)
		defer func() { s.cancel() }() // by then another one
		err := s.recv(func() { end(s) })
		wantClient(l, what+" while Recv waited", s.ctx, err, want)
		_, err = s.client.Chat(s.ctx)
		wantClient(l, what+" before Chat was called", s.ctx, err, want)

		s.link.Cut()
		time.Sleep(time.Second)
		s.cancel()
		s.ctx, s.cancel = with(l.Context())
		err = during(func() error { _, err := s.client.Chat(s.ctx, grpc.WaitForReady(true)); return err }, func() {
			time.Sleep(time.Second) // it tries to connect
			end(s)
		})
		wantClient(l, what+" while Chat waited for a connection", s.ctx, err, want)
	})
}

var errReason = errors.New("the user closed the window")

func TestTheCancelOfTheCallerIsFound(t *testing.T) {
	cancel := func(s *stage) { s.cancel() }
	here(t, "the context was cancelled", context.WithCancel, cancel, CanceledHere)
	here(t, "the context was cancelled, long before its deadline,", within(time.Hour), cancel, CanceledHere)
	here(t, "the context was cancelled for a reason", func(ctx context.Context) (context.Context, context.CancelFunc) {
		ctx, cancel := context.WithCancelCause(ctx)
		return ctx, func() { cancel(errReason) }
	}, cancel, CanceledHere)
	lab.Run(t, func(l *lab.Lab) {
		s := open(l, within(time.Minute))
		err := s.recv(s.cancel)
		time.Sleep(time.Hour)
		wantClient(l, "the context was cancelled an hour ago, before its deadline", s.ctx, err, CanceledHere)
	}, lab.Lasts(2*time.Hour))
}

func TestTheDeadlineOfTheCallerIsFound(t *testing.T) {
	passes := func(s *stage) { <-s.ctx.Done() }
	here(t, "the deadline passed", within(2*time.Second), passes, DeadlineHere)
	here(t, "the deadline of a parent passed", func(ctx context.Context) (context.Context, context.CancelFunc) {
		parent, stop := context.WithTimeout(ctx, 2*time.Second)
		ctx, cancel := context.WithCancel(parent)
		return ctx, func() { cancel(); stop() }
	}, passes, DeadlineHere)
	here(t, "the deadline passed, for which there is a reason,", func(ctx context.Context) (context.Context, context.CancelFunc) {
		return context.WithTimeoutCause(ctx, 2*time.Second, errReason)
	}, passes, DeadlineHere)
}

// lateTimer is a context whose timer runs 15 ms late.
type lateTimer struct{ context.Context }

func (c lateTimer) Deadline() (time.Time, bool) {
	deadline, ok := c.Context.Deadline()
	return deadline.Add(-15 * time.Millisecond), ok
}

// The server notices the deadline too, and what it sends can be here before
// the client's own timer has run.
func TestADeadlineIsFoundBeforeItsTimerRuns(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := open(l, func(ctx context.Context) (context.Context, context.CancelFunc) {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			return lateTimer{ctx}, cancel
		})
		defer s.cancel()
		err := s.recv(func() {})
		if s.ctx.Err() != nil {
			l.Fatalf("the timer has run: %v", err)
		}
		askClient(l, "the deadline has passed, and the timer that ends the context is late", s.ctx, err, DeadlineHere)
	})
}

func TestUnavailableIsUnavailableWhoeverSaysIt(t *testing.T) {
	ended(t, "the server failed with code Unavailable", status.Error(codes.Unavailable, "the shard is moving"), Unavailable)
	for _, tt := range []struct {
		what string
		end  func(*stage)
	}{
		{"the network was cut", func(s *stage) { s.link.Cut() }},
		{"the server was stopped", func(s *stage) { s.srv.Stop() }},
	} {
		lab.Run(t, func(l *lab.Lab) {
			s := open(l, context.WithCancel)
			err := s.recv(func() { tt.end(s) })
			wantClient(l, tt.what, s.ctx, err, Unavailable)
			_, err = s.client.Chat(s.ctx)
			wantClient(l, tt.what+", and Chat could open no other stream", s.ctx, err, Unavailable)
			s.cancel()
			wantClient(l, tt.what+" before the context was cancelled", s.ctx, err, Unavailable)
		})
	}
}

// Each text is one that another end has.
func TestAFailureOfTheServerIsAFailure(t *testing.T) {
	for code := codes.Unknown; code <= codes.Unauthenticated && !t.Failed(); code++ {
		for _, text := range []string{"", "EOF", "context canceled", "context deadline exceeded", "error reading from server: EOF", "transport is closing"} {
			if code != codes.DeadlineExceeded && code != codes.Unavailable && !t.Failed() {
				ended(t, fmt.Sprintf("the server failed with code %v and the text %q", code, text), status.Error(code, text), Failed)
			}
		}
	}
}

func TestACancelOrADeadlineOfTheServerIsAFailure(t *testing.T) {
	ended(t, "the server returned the Canceled of a context of its own", context.Canceled, Failed)
	ended(t, "the server returned the DeadlineExceeded of a context of its own", context.DeadlineExceeded, Failed)
	ended(t, "the server failed with code Canceled and a text of its own", status.Error(codes.Canceled, "the shard is moving"), Failed)
	ended(t, "the server failed with code DeadlineExceeded and a text of its own", status.Error(codes.DeadlineExceeded, "the disk is slow"), Failed)
	lab.Run(t, func(l *lab.Lab) {
		s := open(l, within(time.Second))
		defer s.cancel()
		deadline, _ := s.ctx.Deadline()
		time.Sleep(time.Until(deadline) - 30*time.Millisecond)
		err := s.recv(func() { s.answer <- context.DeadlineExceeded })
		var got ending
		l.Call("clientEnding", time.Second, func() { got = clientEnding(s.ctx, err) })
		if left := time.Until(deadline); left > 0 && got != Failed { // an answer that takes longer cannot tell
			l.Errorf("the server returned the DeadlineExceeded of a context of its own, and clientEnding says %v, want Failed\n"+
				" err is %q\n the deadline of ctx is %v away", got, err.Error(), left)
		}
	})
}

func TestAClosedConnectionIsAFailure(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := open(l, context.WithCancel)
		defer s.cancel()
		err := s.recv(func() { s.conn.Close() })
		wantClient(l, "this process closed the connection while the context lived", s.ctx, err, Failed)
	})
}

func recv(stream chatServer) error {
	_, err := stream.Recv()
	return err
}

// send sends until Send waits for the window, and returns what ends that.
func send(stream chatServer) error {
	for {
		if err := stream.Send(&feedv1.ChatMessage{Text: strings.Repeat("x", 1000)}); err != nil {
			return err
		}
	}
}

func done(stream chatServer) error {
	<-stream.Context().Done()
	return stream.Context().Err()
}

// A wait is a place in which a handler learns of the end.
type wait struct {
	what string
	wait func(chatServer) error
}

func waits() []wait {
	return []wait{{"Recv", recv}, {"Send", send}, {"stream.Context()", done}}
}

// atHandler returns what ended the handler's wait, which lasts while end runs.
func (s *stage) atHandler(wait func(chatServer) error, end func()) error {
	return during(func() error { return wait(s.handler) }, end)
}

func TestAHalfCloseIsNotTheClientLeaving(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		s := open(l, context.WithCancel)
		defer s.cancel()
		err := s.atHandler(recv, func() { s.stream.CloseSend() })
		wantHandler(l, "the client half-closed while Recv waited", err, HalfClosed)
	})
}

func TestALostStreamIsNoFailure(t *testing.T) {
	for _, tt := range []struct {
		what string
		end  func(*stage)
	}{
		{"the client cancelled", func(s *stage) { s.cancel() }},
		{"the network was cut", func(s *stage) { s.link.Cut() }},
		{"the client closed the connection", func(s *stage) { s.conn.Close() }},
		{"the server was stopped", func(s *stage) { s.srv.Stop() }},
	} {
		for _, w := range waits() {
			lab.Run(t, func(l *lab.Lab) {
				s := open(l, context.WithCancel)
				defer s.cancel()
				err := s.atHandler(w.wait, func() { tt.end(s) })
				wantHandler(l, fmt.Sprintf("%s while the handler waited for %s", tt.what, w.what), err, PeerGone)
			})
		}
	}
}

// The handler learns of a deadline from the client, which resets the stream,
// and from a timer of the server. Here the one is 500 ns ahead (a timeout
// crosses the wire in whole microseconds, rounded up), and then the other.
func TestADeadlineIsNoFailureWhoeverNoticesFirst(t *testing.T) {
	early := grpc.InTapHandle(func(ctx context.Context, _ *tap.Info) (context.Context, error) {
		deadline, _ := ctx.Deadline()
		timer, cancel := context.WithDeadline(ctx, deadline.Add(-20*time.Millisecond))
		context.AfterFunc(ctx, cancel)
		return timer, nil
	})
	for _, tt := range []struct {
		first string
		opts  []grpc.ServerOption
	}{{"client", nil}, {"server", []grpc.ServerOption{early}}} {
		for _, w := range waits() {
			lab.Run(t, func(l *lab.Lab) {
				s := open(l, within(time.Second+500*time.Nanosecond), tt.opts...)
				defer s.cancel()
				err := s.atHandler(w.wait, func() {})
				wantHandler(l, fmt.Sprintf("the deadline passed, the %s noticed first, while the handler waited for %s", tt.first, w.what), err, PeerGone)
			})
		}
	}
}

func TestAMessageThatCannotPassIsAFailure(t *testing.T) {
	lab.Run(t, func(l *lab.Lab) {
		for _, tt := range []struct {
			what string
			wait func(chatServer) error
			end  func(*stage)
		}{
			{"the client sent a message that is larger than the server's limit", recv,
				func(s *stage) { s.stream.Send(&feedv1.ChatMessage{Text: strings.Repeat("x", 200)}) }},
			{"the handler sent a message that is larger than the server's limit", send, func(*stage) {}},
			{"the handler sent a text that is not UTF-8", func(stream chatServer) error {
				return stream.Send(&feedv1.ChatMessage{Text: "\xff"})
			}, func(*stage) {}},
		} {
			s := open(l, context.WithCancel, grpc.MaxRecvMsgSize(100), grpc.MaxSendMsgSize(100))
			defer s.cancel()
			err := s.atHandler(tt.wait, func() { tt.end(s) })
			wantHandler(l, tt.what, err, Failed)
		}
	})
}
